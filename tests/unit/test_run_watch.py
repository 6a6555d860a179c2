"""What a coordinator notices of a running attempt: failures that any rank tells, and a rank 0 that is silent."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from fsd_inference.aws import watching
from fsd_inference.aws.failures import parse_reported, reported_failure
from fsd_inference.aws.notes import told_key
from fsd_inference.aws.watching import Watch, last_reports
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StallError
from fsd_inference.rank_report import RankReport
from fsd_inference.store.memory import MemoryStore

STALL = StallError("rank 1 waits", rank=2, layer=5, operation="receive")


class NoFailures:
    """A queue of Lambda's records that stays empty."""

    def receive(self, _wait_s: int) -> list[tuple[str, str]]:
        time.sleep(0.01)
        return []


def spec(stall_s: float = 60.0) -> RunSpec:
    clocks = Clocks(start_s=60, stall_s=stall_s, run_s=60)
    return RunSpec("0" * 32, 0, "1" * 32, 1, 1, time.time() + 60, RunSettings(workers=3, clocks=clocks))


def report(store: MemoryStore, attempt: RunSpec, rank: int) -> None:
    store.put(attempt.report_key(rank), json.dumps(RankReport(rank).to_json()).encode())


def watched(store: MemoryStore, attempt: RunSpec) -> RunError | None:
    failures: Any = NoFailures()
    with Watch(store, failures, attempt, lambda _: None) as watch:
        return watch.until_over(time.time())


def test_a_failure_that_a_rank_tells_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PROGRESS_S", 0.05)
    store, attempt = MemoryStore(), spec()
    store.put(told_key(attempt.prefix), reported_failure(STALL))
    error = watched(store, attempt)
    assert error is not None
    assert error.record() == STALL.record()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"reported": null}', b'{"reported": []}', b"x"])
def test_other_objects_report_nothing(data: bytes) -> None:
    assert parse_reported(data) is None


def test_a_rank_0_is_silent_that_does_not_report_after_all_others() -> None:
    store, attempt = MemoryStore(), spec(stall_s=0.1)
    for rank in (1, 2):
        report(store, attempt, rank)
    error = watched(store, attempt)
    assert isinstance(error, StallError)
    assert (error.rank, error.retryable) == (0, True)


def test_a_rank_0_that_reports_is_not_silent() -> None:
    store, attempt = MemoryStore(), spec(stall_s=0.1)
    for rank in range(3):
        report(store, attempt, rank)
    assert watched(store, attempt) is None


def test_the_reports_of_the_others_are_awaited_until_they_are_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_QUIET_S", 0.1)
    store, attempt = MemoryStore(), spec()
    report(store, attempt, 0)
    assert [each.rank for each in last_reports(store, attempt, STALL)] == [0]
    report(store, attempt, 1)
    report(store, attempt, 2)  # which was named by the rank that noticed, and is not the cause if it can report
    assert [each.rank for each in last_reports(store, attempt, STALL)] == [0, 1, 2]
