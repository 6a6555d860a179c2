"""Predicted checkpoints and hand-ons, compared with a walk layer by layer and with the cheapest of all intervals."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.config import RunSettings
from fsd_inference.forecast.course import Attempt, Course
from fsd_inference.forecast.handing_on import (
    FAILURE_S,
    FunctionLimit,
    HandingOn,
    Prices,
    Stored,
    function_limit,
    stored,
)
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.times import RunTimes, predict_times
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from tests.support.scenarios import timing

OPEN_S, STORE_S = 3.0, 1.0
FREE = Stored(0.0, 0.0, 0.0)


def times_of(layers_s: list[float], compute_s: list[float] | None = None) -> RunTimes:
    """A run that takes 3 s to start and load, and 1 s to store its result."""
    run_s = OPEN_S + sum(layers_s) + STORE_S
    computing = tuple(layers_s if compute_s is None else compute_s)
    return RunTimes(run_s + 2, 1.0, OPEN_S - 1, STORE_S, tuple(layers_s), computing, 4 * (run_s - 0.5), 0, 0.0)


def handing_on(layers_s: list[float], limit: FunctionLimit | None, takes: Stored = FREE) -> HandingOn:
    return HandingOn(times_of(layers_s), 4, [1.0] * len(layers_s), takes, limit)


def walked(
    layers_s: list[float], every: int, limit: FunctionLimit, takes: Stored
) -> list[tuple[int, int, float]] | None:
    """Carry a run out layer by layer: (first layer, layers computed, seconds) of each attempt; None if it is stuck."""
    found: list[tuple[int, int, float]] = []
    first = 0
    each_s = takes.pack_s + max(0.0, takes.put_s - every * sum(layers_s) / len(layers_s))
    while True:
        limit_s = limit.later_s if found else limit.first_s
        now, layer, kept = OPEN_S, first, first
        while layer < len(layers_s):
            is_kept = layer + 1 < len(layers_s) and (layer + 1 - first) % every == 0
            now += layers_s[layer] + (each_s if is_kept else 0.0)
            if now > limit_s:
                break
            layer += 1
            kept = layer if is_kept else kept
        if layer == len(layers_s) and now + STORE_S <= limit_s:
            return [*found, (first, layer, now + STORE_S)]
        found.append((first, layer, limit_s))
        if kept == first:
            return None
        first = kept


# Binary fractions, so that sums in another order are equal.
quarters = st.integers(1, 40).map(lambda count: count / 4)


@given(
    layers_s=st.lists(quarters, min_size=2, max_size=40),
    every=st.integers(2, 12),
    limit_s=st.integers(8, 120),
    pack_s=st.integers(0, 4).map(lambda count: count / 8),
)
def test_attempts_are_those_of_a_walk_layer_by_layer(
    layers_s: list[float], every: int, limit_s: int, pack_s: float
) -> None:
    limit, takes = FunctionLimit(limit_s - 1.0, float(limit_s), 5.0), Stored(0.0, pack_s, 0.0)
    found, expected = handing_on(layers_s, limit, takes).course(every), walked(layers_s, every, limit, takes)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert [(each.first, each.reached) for each in found.attempts] == [each[:2] for each in expected]
    assert [each.run_s for each in found.attempts] == pytest.approx([each[2] for each in expected])


@given(layers_s=st.lists(quarters, min_size=4, max_size=40), every=st.integers(2, 6), limit_s=st.integers(30, 90))
def test_what_is_lost_is_sent_again_and_stored_again(layers_s: list[float], every: int, limit_s: int) -> None:
    course = handing_on(layers_s, FunctionLimit(limit_s, limit_s, 0.0)).course(every)
    if course is None:
        return
    sent, kept, layers = Counter[int](), 0, len(layers_s)
    for attempt in course.attempts:
        for layer in range(attempt.first, attempt.reached):
            sent[layer] += layer < layers - 1
            kept += layer + 1 < layers and (layer + 1 - attempt.first) % every == 0
        sent[attempt.first - 1] += attempt.first > 0  # the rows of the checkpoint
    assert course.sends().tolist() == [sent[layer] for layer in range(layers - 1)]
    assert course.checkpoints == kept
    # A sample of the layers represents them all.
    assert course.weights([1.0] * layers) == course.sends().tolist()
    assert sum(course.weights([2.0, layers - 3.0, 1.0])) == pytest.approx(sum(sent.values()))


def test_times_and_functions_are_those_of_all_attempts() -> None:
    planned = handing_on([10.0] * 20, FunctionLimit(60.0, 55.0, 7.0))
    course = planned.course(2)
    assert course is not None
    # 57 s hold five layers, of which the last is lost; 52 s as many; the last attempt has four layers.
    assert [(each.first, each.reached) for each in course.attempts] == [(0, 5), (4, 9), (8, 13), (12, 17), (16, 20)]
    found, before = planned.times(course), times_of([10.0] * 20)
    running_s = 60 + 3 * 55 + (OPEN_S + 40 + STORE_S)
    assert found.wall_s == pytest.approx(before.wall_s - before.run_s + running_s + 4 * 7)
    assert found.functions_s == pytest.approx(4 * (running_s - 5 * 0.5))  # each rank starts half a second late
    workers, coordinators = found.function_times(1769, 4)
    assert (workers.invocations, coordinators.invocations) == (5 * 4, 5)
    assert found.again_s == pytest.approx(found.wall_s - before.wall_s)


def test_a_run_without_checkpoints_has_one_attempt_or_none() -> None:
    short = handing_on([10.0] * 5, FunctionLimit(60.0, 60.0, 1.0))
    assert short.course(0) == Course(5, 0, (Attempt(0, 5, 54.0),))
    assert short.times(Course(5, 0, (Attempt(0, 5, 54.0),))) == times_of([10.0] * 5)
    assert handing_on([10.0] * 6, FunctionLimit(60.0, 60.0, 1.0)).course(0) is None
    assert handing_on([10.0] * 6, None).course(0) == Course(6, 0, (Attempt(0, 6, 64.0),))


def test_a_checkpoint_waits_for_the_one_before() -> None:
    takes = Stored(0.0, 0.5, put_s=25.0)
    (attempt,) = (handing_on([10.0] * 9, None, takes).course(2) or Course.whole(9)).attempts
    assert attempt.run_s == pytest.approx(OPEN_S + 90 + STORE_S + 4 * (0.5 + 5.0))


# --- the interval that costs least ------------------------------------------------------------------------------------

PRICES = Prices(functions_usd_per_s=1e-4, exchange_usd=0.02, put_usd=5e-6)


def cost_of(planned: HandingOn, every: int, prices: Prices) -> float:
    """Dollars of the functions, the exchange and the PUTs of a run, with the random failures that are expected."""
    course = planned.course(every)
    if course is None:
        return math.inf
    lasts_s = sum(attempt.run_s for attempt in course.attempts)
    sent = float(course.sends().sum()) / (course.layers - 1)
    fails, a_second = 4 * lasts_s / FAILURE_S, prices.functions_usd_per_s + prices.exchange_usd / lasts_s
    lost_s = min(lasts_s, every * lasts_s / course.layers if every else lasts_s) / 2
    puts = 4 * course.checkpoints * prices.put_usd
    return lasts_s * prices.functions_usd_per_s + sent * prices.exchange_usd + puts + fails * lost_s * a_second


@pytest.mark.parametrize("layer_s", [1.0, 5.0, 30.0])
@pytest.mark.parametrize("pack_s", [0.01, 1.0])
@pytest.mark.parametrize("put_usd", [0.0, 5e-6, 5e-5])
@pytest.mark.parametrize("total_s", [400.0, 10_000.0])
def test_the_choice_costs_little_more_than_the_best_of_all(
    layer_s: float, pack_s: float, put_usd: float, total_s: float
) -> None:
    """Over somewhat different time limits, since no one knows on which layer of a stretch a limit falls."""
    layers, prices = round(total_s / layer_s), replace(PRICES, put_usd=put_usd)
    runs = [
        handing_on([layer_s] * layers, FunctionLimit(limit_s, limit_s, 1.0), Stored(0.0, pack_s, 0.1))
        for limit_s in np.linspace(620.0, 870.0, 11).tolist()
    ]

    def mean_cost(every: int) -> float:
        return sum(cost_of(run, every, prices) for run in runs)

    intervals = {0, *np.unique(np.geomspace(2, layers, 25).astype(int)).tolist()}
    assert mean_cost(runs[-1].choose(prices)) <= 1.02 * min(map(mean_cost, intervals))


def test_a_short_run_wants_no_checkpoints_and_a_long_one_needs_them() -> None:
    limit, takes = FunctionLimit(870.0, 870.0, 1.0), Stored(0.0, 0.01, 0.1)
    assert handing_on([0.5] * 120, limit, takes).choose(PRICES) == 0
    assert 0 < handing_on([0.5] * 7200, limit, takes).choose(PRICES) < 870 / 0.5
    # A run that is predicted to end in time may be slower than that.
    assert [handing_on([0.5] * layers, limit, takes).choose(PRICES) > 0 for layers in (600, 900)] == [False, True]
    # Without functions only failures matter: a run of a day may meet one.
    assert handing_on([0.5] * 120, None, takes).choose(PRICES) == 0
    assert handing_on([12.0] * 7200, None, takes).choose(PRICES) > 0


def test_dear_checkpoints_are_fewer_by_the_root_of_their_price() -> None:
    limit, takes = FunctionLimit(870.0, 870.0, 1.0), Stored(0.0, 0.0, 0.0)
    cheap, dear = (
        handing_on([0.01] * 500_000, limit, takes).choose(replace(PRICES, put_usd=usd)) for usd in (5e-6, 2e-5)
    )
    assert dear == pytest.approx(2 * cheap, rel=0.02)


def test_layers_as_long_as_the_limit_cannot_be_handed_on() -> None:
    stuck = handing_on([900.0] * 10, FunctionLimit(870.0, 870.0, 1.0))
    assert stuck.may_outlive
    assert stuck.course(stuck.choose(PRICES)) is None
    # As long as two layers fit into a function, the choice finds an interval.
    tight = handing_on([400.0] * 10, FunctionLimit(870.0, 870.0, 1.0))
    assert tight.choose(replace(PRICES, put_usd=1.0)) == 2


# --- what a checkpoint takes, and what a limit leaves -----------------------------------------------------------------


def test_what_a_checkpoint_takes_follows_from_its_rows() -> None:
    """Two ranks have half of 8 rows of 4 bytes for each of 100 samples."""
    edges = (Edge(0, (1,), np.arange(2, dtype=np.int32)), Edge(1, (0,), np.arange(2, dtype=np.int32)))
    plan = ExchangePlan(2, (edges, ()))
    work = Work(np.ones((3, 2), np.int64), (8, 8, 8), np.full(2, 10, np.int64))
    payloads = dense_payloads(plan, samples=100)
    times = timing(
        cpu__pack_bytes_per_s=1e3, cpu__put_s=0.25, put__median_s=2.0, put__p99_s=2.0, connection__bytes_per_s=1e2
    )
    takes = stored(plan, work, payloads, times, Speed(times, 0.5))
    assert takes.size == 8 * 4 * 100  # no rank sends the rows of layer 1, which are taken to be dense
    assert takes.pack_s == pytest.approx((0.25 + 1600 / 1e3) / 0.5)
    assert takes.put_s == pytest.approx(2.0 + 1600 / 1e2)


def test_what_the_time_limit_leaves() -> None:
    times = timing(begin__median_s=1.0, begin__p99_s=1.0, cold__median_s=3.0, cold__p99_s=3.0, client__before_s=0.5)
    free, waits = function_limit(times, 900.0), function_limit(times, 900.0, lane_wait_s=60.0)
    assert free == FunctionLimit(first_s=900 - 20 - 1 - 3, later_s=900 - 20 - 1, between_s=0.5 + 2)
    assert waits == replace(free, later_s=free.later_s - 60, between_s=free.between_s + 60)


def test_layers_of_a_real_prediction_add_up() -> None:
    """The walk uses the time model's own layers: without limit and price the run takes as long as before."""
    edges = (Edge(0, (1,), np.arange(2, dtype=np.int32)),)
    plan = ExchangePlan(2, (edges,) * 9)
    work = Work(np.full((10, 2), 10**6, np.int64), (8,) * 10, np.full(2, 10, np.int64))
    payloads = dense_payloads(plan, samples=100)
    times = predict_times(plan, work, payloads, RunSettings(workers=2), "queue", timing(), memory_mb=1769)
    planned = HandingOn(times, 2, [1.0] * 10, Stored(0.0, 0.0, 0.0), None)
    course = planned.course(3)
    assert course is not None
    assert planned.times(course).wall_s == pytest.approx(times.wall_s)
