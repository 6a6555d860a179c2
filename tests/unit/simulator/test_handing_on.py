"""Simulated checkpoints and hand-ons, compared with the attempts that the closed form foresees."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.config import Clocks
from fsd_inference.errors import DeadlineError, HandedOnError
from fsd_inference.forecast.course import Course
from fsd_inference.forecast.handing_on import HandingOn, function_limit, stored
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.times import predict_times
from fsd_inference.forecast.timing import load_timing
from fsd_inference.limits import COORDINATOR_END_S
from fsd_inference.simulator import Scenario, SimulatedRun, simulate
from tests.support.scenarios import latencies, scenario, timing

FAST_PACKING = {"cpu__pack_bytes_per_s": 1e30}


def with_checkpoints(it: Scenario, every: int, run_s: float = 1e9, timeout_s: float | None = None) -> Scenario:
    clocks = Clocks(stall_s=1e9, start_s=1e9, run_s=run_s)
    return replace(it, settings=replace(it.settings, checkpoint_every=every, clocks=clocks), timeout_s=timeout_s)


def predicted(it: Scenario) -> tuple[HandingOn, Course | None]:
    """Return what the closed form says of a scenario with a time limit."""
    weights = [1.0] * it.work.layers
    assert it.timeout_s is not None
    times = predict_times(it.plan, it.work, it.payloads, it.settings, it.channel, it.timing, memory_mb=it.memory_mb)
    takes = stored(it.plan, it.work, it.payloads, it.timing, Speed(it.timing))
    planned = HandingOn(times, it.settings.workers, weights, takes, function_limit(it.timing, it.timeout_s))
    return planned, planned.course(it.settings.checkpoint_every)


@given(
    workers=st.integers(1, 5),
    layers=st.integers(2, 12),
    seed=st.integers(0, 10**6),
    every=st.integers(2, 4),
    micro_batches=st.integers(1, 3),
    channel=st.sampled_from(["queue", "object"]),
)
@settings(max_examples=25, deadline=None)
def test_checkpoints_are_puts_of_all_rows_and_take_the_time_of_packing(
    workers: int, layers: int, seed: int, every: int, micro_batches: int, channel: str
) -> None:
    times = timing(cpu__pack_bytes_per_s=1e6)
    it = scenario(workers, layers, seed=seed, micro_batches=micro_batches, channel=channel, times=times)
    bare, found = simulate(it), simulate(with_checkpoints(it, every))
    assert found.error is None
    count = (layers - 1) // every
    assert [len(rank.checkpoints) for rank in found.ranks] == [count] * workers
    assert found.usage.requests["s3.put"] == bare.usage.requests["s3.put"] + workers * count
    assert found.usage.frames == bare.usage.frames
    # Dense rows of 4 bytes a sample; each layer has 12 rows a rank.
    stored_bytes = sum(sum(rank.checkpoints) for rank in found.ranks)
    assert stored_bytes == pytest.approx(count * workers * 12 * 12 * 4)
    if channel == "queue":
        assert bare.wall_s <= found.wall_s <= bare.wall_s + stored_bytes / 1e6 + 1e-9
    report = found.report()
    assert sum(rank.checkpoints for rank in report.ranks) == workers * count


def walked(layers_s: list[float], every: int, limit_s: float) -> list[int] | None:
    """Return where the attempts of one rank start; None if it is stuck.

    A layer that is being computed at the limit is finished, and its checkpoint stored.
    """
    starts = [0]
    while sum(layers_s[starts[-1] :]) > limit_s:
        now, kept = 0.0, starts[-1]
        for layer in range(starts[-1], len(layers_s)):
            if now >= limit_s:
                break
            now += layers_s[layer]
            if layer + 1 < len(layers_s) and (layer + 1) % every == 0:
                kept = layer + 1
        if kept == starts[-1]:
            return None
        starts.append(kept)
    return starts


@given(layers=st.integers(4, 30), seed=st.integers(0, 10**6), every=st.integers(2, 5), share=st.floats(0.15, 1.2))
@settings(max_examples=40, deadline=None)
def test_one_rank_hands_on_layer_by_layer(layers: int, seed: int, every: int, share: float) -> None:
    it = scenario(1, layers, seed=seed, samples=10_000, times=timing(**FAST_PACKING))
    layers_s = (it.work.connections[:, 0] * 1e-5).tolist()
    limit_s = share * sum(layers_s) + 0.0123456  # which is between the ends of two layers
    found = simulate(with_checkpoints(it, every, timeout_s=COORDINATOR_END_S + limit_s))
    expected = walked(layers_s, every, limit_s)
    if expected is None:
        assert isinstance(found.error, HandedOnError)
        assert "store them more often" in str(found.error)
        return
    assert found.error is None
    assert list(found.starts) == expected
    workers, coordinators = found.function_times()
    assert workers.invocations == coordinators.invocations == len(expected)


def handed_on(channel: str, timeout_s: float, **more: object) -> tuple[Scenario, SimulatedRun]:
    times = timing(**latencies(0.05) | {"cold__median_s": 0.5, "cold__p99_s": 0.5, "init__s": 2.0})
    it = scenario(4, 40, seed=3, channel=channel, times=times)
    limited = with_checkpoints(it, 3, timeout_s=COORDINATOR_END_S + timeout_s, **more)  # type: ignore[arg-type]
    return limited, simulate(limited)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_each_attempt_has_functions_and_objects_of_its_own(channel: str) -> None:
    (it, found), (_, whole) = handed_on(channel, 3.0), handed_on(channel, 1e6)
    assert (found.error, whole.starts) == (None, (0,))
    attempts = len(found.starts)
    assert attempts > 2
    assert list(found.starts) == sorted(set(found.starts))
    assert all(start % 3 == 0 for start in found.starts)
    assert len(found.earlier) == 4 * (attempts - 1)
    assert all(rank.ended - rank.begun <= 3.5 for rank in (*found.earlier, *found.ranks))
    # Claims and reports of each attempt; results and the input of the run; the checkpoints.
    kept = sum(len(rank.checkpoints) for rank in (*found.earlier, *found.ranks))
    sent = found.usage.requests["s3.put"] - (1 + 4 + 2 * 4 * attempts + kept)
    frames = whole.usage.requests["s3.put"] - (1 + 4 + 2 * 4 + 4 * 13)
    if channel == "object":
        assert sent > frames > 0
    else:  # a lease is written twice, and renewed before queues are purged
        assert (sent, frames) == (2 + 3 * (attempts - 1), 2)
        assert found.usage.requests["sqs.purge"] == 4 * (attempts - 1)
    assert found.usage.requests["lambda.invoke"] == 4 * attempts
    assert found.wall_s > whole.wall_s
    # Environments start cold once.
    workers, coordinators = found.function_times()
    assert (workers.invocations, coordinators.invocations) == (4 * attempts, attempts)
    lived = sum(rank.ended - rank.begun for rank in (*found.earlier, *found.ranks))
    assert workers.seconds == pytest.approx(lived + 4 * 2.0, abs=0.001 * 4 * attempts)
    assert coordinators.seconds == pytest.approx(found.wall_s + 2.0)
    report = found.report()
    assert (report.attempts, report.resumed_at) == (attempts, found.starts[-1])
    assert report.earlier.workers == 4 * (attempts - 1)
    assert it.settings.checkpoint_every == 3


@pytest.mark.parametrize(("channel", "every"), [("queue", 12), ("object", 4), ("object", 40)])
def test_the_closed_form_agrees_on_a_run_of_an_hour(channel: str, every: int) -> None:
    it = scenario(8, 240, seed=1, channel=channel, times=load_timing(), samples=250_000)
    limited = with_checkpoints(it, every, timeout_s=900.0)
    found, (planned, course) = simulate(limited), predicted(limited)
    assert course is not None
    wall_s = planned.times(course).wall_s
    print(f"{channel}, C={every}: {len(found.starts)} attempts, {found.wall_s:.0f} s; predicted {wall_s:.0f} s")
    assert (found.error, len(found.starts)) == (None, len(course.attempts))
    assert found.wall_s == pytest.approx(wall_s, rel=0.2)


def test_the_run_clock_is_that_of_all_attempts() -> None:
    _, found = handed_on("queue", 3.0, run_s=5.0)
    assert isinstance(found.error, DeadlineError)
    assert found.wall_s < 12.0
