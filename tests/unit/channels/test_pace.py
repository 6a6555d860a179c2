"""The pace of polling under virtual time: which source is polled, and when."""

from __future__ import annotations

import random

import pytest

from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.errors import SettingError


def play(pace: Pace, step: int, begun: float, arrivals: dict[int, float]) -> tuple[float, int]:
    """Read a step whose sources come at `arrivals` as the channel does; return when it is complete, and the misses."""
    now, misses = begun, 0
    missing = set(arrivals)
    pace.begin(step)
    while missing:
        source = pace.choose(missing)
        now = max(now, pace.poll_at(source))
        if arrivals[source] > now:
            pace.missed(source, now)
            misses += 1
            continue
        there = {source for source in missing if arrivals[source] <= now}
        pace.came(source, there, now)
        missing -= there
        if missing:
            misses += len(missing)
            pace.missed(pace.choose(missing), now)
    return now, misses


def test_before_anything_is_known_the_highest_rank_is_polled_at_once() -> None:
    pace = Pace(PaceSettings())
    pace.begin(0)
    assert pace.choose([3, 7, 5]) == 7
    assert pace.poll_at(7) <= 0.0


def test_a_steady_straggler_is_found_and_costs_few_misses() -> None:
    source = random.Random(1)
    pace = Pace(PaceSettings())
    now, recent = 0.0, []
    for step in range(100):
        arrivals = {rank: now + 0.05 + 0.02 * source.random() for rank in range(8)}
        arrivals[3] = now + 0.2
        done, misses = play(pace, step, now, arrivals)
        assert arrivals[3] <= done <= arrivals[3] + 0.075
        if step >= 50:
            assert pace.choose(range(8)) == 3
            recent.append(misses)
        now = done
    assert max(recent) <= 3


def test_a_new_straggler_is_learnt() -> None:
    pace = Pace(PaceSettings())
    now = 0.0
    for step in range(40):
        late = 2 if step < 20 else 5
        arrivals = {rank: now + (0.2 if rank == late else 0.1) for rank in range(8)}
        now, _ = play(pace, step, now, arrivals)
        if step in {19, 39}:
            assert pace.choose(range(8)) == late


def test_when_steps_get_faster_the_polls_follow() -> None:
    pace = Pace(PaceSettings())
    now, waits = 0.0, []
    for step in range(60):
        wait = 1.0 if step < 10 else 0.05
        done, _ = play(pace, step, now, dict.fromkeys(range(4), now + wait))
        waits.append(done - now)
        now = done
    assert waits[9] >= 1.0
    assert waits[-1] <= 0.07


def test_a_late_reader_does_not_wait() -> None:
    pace = Pace(PaceSettings())
    now = 0.0
    for step in range(20):
        begun = now + 0.5  # its own computing takes longer than anything else
        done, misses = play(pace, step, begun, dict.fromkeys(range(4), now + 0.1))
        assert (done, misses) == (begun, 0)
        now = done


def test_intervals_grow_to_their_bound() -> None:
    pace = Pace(PaceSettings(shortest_s=0.01, longest_s=0.1))
    pace.begin(0)
    now, intervals = 0.0, []
    for _ in range(12):
        pace.missed(1, now)
        intervals.append(pace.poll_at(1) - now)
        now = pace.poll_at(1)
    assert intervals[0] == pytest.approx(0.01)
    assert intervals == pytest.approx(sorted(intervals))
    assert intervals[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong", [{"aim": 1.0}, {"memory": -0.1}, {"shortest_s": 0.0}, {"shortest_s": 1.0, "longest_s": 0.5}]
)
def test_nonsense_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingError):
        PaceSettings(**wrong)
