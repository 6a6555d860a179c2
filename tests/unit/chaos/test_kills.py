"""What is promised when a rank is killed, held against outcomes."""

from __future__ import annotations

import pytest

from fsd_inference.chaos.kills import problem, rows, schedules
from fsd_inference.chaos.schedule import Fault, Schedule
from fsd_inference.chaos.trial import Outcome, Verdict


def outcome(
    verdict: Verdict, *, attempts: int = 1, named: int | None = None, seconds: float = 1.0, victim: int = 2
) -> Outcome:
    schedule = Schedule(0, "local", 3, 1, attempts, (Fault("kill rank", 4, victim),))
    error = None if named is None else {"type": "WorkerDiedError", "rank": named, "operation": "run"}
    return Outcome(schedule, verdict, error=error, fault_s=seconds)


def test_each_rank_at_each_tenth_over_each_channel() -> None:
    found = {(s.place, s.attempts, s.faults[0].rank, s.faults[0].at) for s in schedules()}
    assert len(found) == 3 * 2 * 3 * 10


@pytest.mark.parametrize(
    "kept",
    [
        outcome("right", attempts=2),
        outcome("right"),
        outcome("error", named=2),
    ],
)
def test_kept_promises(kept: Outcome) -> None:
    assert problem(kept) is None


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (outcome("error", attempts=2, named=2), "an attempt was left"),
        (outcome("error", named=1), "another rank is named"),
        (outcome("error", named=2, seconds=11.0), "it took too long"),
        (outcome("unnamed"), "unnamed"),
        (outcome("WRONG"), "WRONG"),
        (outcome("LEFTOVER", attempts=2), "LEFTOVER"),
    ],
)
def test_broken_promises(broken: Outcome, said: str) -> None:
    assert said in (problem(broken) or "")


def test_the_table_counts() -> None:
    found = [outcome("right"), outcome("error", named=2, seconds=3.0), outcome("error", named=0)]
    assert rows(found) == [("local", 1, 3, 1, 1, 0, 1, "3.0")]
