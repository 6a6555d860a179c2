"""The planner: its options compared with exhaustive search, limits, memory, and cached plans."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fsd_inference as fsd
from fsd_inference.config import RunSettings
from fsd_inference.cost.prices import load_prices
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import SettingError
from fsd_inference.forecast.counts import count_exchange
from fsd_inference.forecast.cut import Cut, thin
from fsd_inference.forecast.memory import FUNCTION_BYTES, MARGIN, PROCESS_BYTES, function_mb, rank_bytes, row_bytes
from fsd_inference.forecast.options import MANAGED, VARIANTS, Advice, Option, Question
from fsd_inference.forecast.payloads import Payloads, dense_payloads
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import PUBLISH_QUOTA, Sourced, Timing, load_timing
from fsd_inference.forecast.work import Work, rank_work, whole_work
from fsd_inference.partitioning import ExchangePlan, Partition
from fsd_inference.partitioning.plan import Edge
from fsd_inference.session.platforms import FunctionPlatform
from tests.support.scenarios import random_plan

SAMPLES = 1000


def cut(workers: int, layers: int = 30, samples: int = SAMPLES) -> Cut:
    _, plan, work = random_plan(workers, layers, 96, seed=workers)
    return Cut(plan, work, dense_payloads(plan, samples=samples, features=96))


CUTS = {workers: cut(workers) for workers in (1, 2, 4)}


def asked(cuts: dict[int, Cut] = CUTS, **more: object) -> Advice:
    question = Question(SAMPLES, **more)  # type: ignore[arg-type]
    return plan_options(cuts, question, load_timing(), load_prices())


def test_the_first_is_the_cheapest_and_reasons_are_words() -> None:
    found = asked(queries_a_day=500)
    possible = [option for option in found.options if option.problem is None]
    assert found.best.usd == min(option.usd for option in possible if option.usd is not None)
    assert {option.variant for option in found.options} == set(VARIANTS) - {MANAGED}
    assert all("of the time" in o.reason and "of the cost" in o.reason for o in found.options if not o.is_server)
    assert found.to_json()["options"][0]["name"] == found.best.name


def test_a_deadline_takes_the_cheapest_in_time_and_a_budget_the_fastest_within_it() -> None:
    everything = asked()
    walls = sorted(option.wall_s for option in everything.options if not option.is_server)
    deadline = walls[len(walls) // 2]
    in_time = asked(deadline_s=deadline)
    assert in_time.best.wall_s <= deadline
    late = [option for option in in_time.options if option.wall_s > deadline]
    assert late
    assert all(option.problem is not None for option in late)
    fast = asked(budget_usd=100.0)
    assert fast.best.wall_s == min(o.wall_s for o in fast.options if o.problem is None)


def test_no_option_beats_one_of_the_front_in_both() -> None:
    options = [option for option in asked(queries_a_day=100).options if option.usd is not None]
    front = [option for option in options if option.is_pareto]
    assert front
    for one in front:
        assert not any(o.wall_s < one.wall_s and (o.usd or 0) < (one.usd or 0) for o in options)


def test_what_fits_no_function_says_so() -> None:
    large = {p: replace(c, work=replace(c.work, shard_bytes=c.work.shard_bytes + 2 * 10**9)) for p, c in CUTS.items()}
    large[1] = replace(large[1], work=replace(large[1].work, shard_bytes=np.array([20 * 10**9])))
    found = asked(large)
    alone = [option for option in found.options if option.variant == "serial"]
    assert alone
    assert all(o.limit == "memory" and "memory does not fit" in (o.problem or "") for o in alone)
    assert found.best.workers > 1
    assert found.best.memory_mb is not None
    assert found.best.memory_mb * 2**20 > 2 * 10**9


def test_an_account_that_may_publish_little_slows_queues_and_says_so() -> None:
    def queues(quota: float) -> dict[tuple[int, int], Option]:
        found = plan_options(CUTS, Question(SAMPLES), load_timing(publish_quota=quota), load_prices()).options
        return {(o.workers, o.memory_mb or 0): o for o in found if o.variant == "queue"}

    free, paced = queues(30_000), queues(1)
    common = [key for key in free.keys() & paced.keys() if key[0] == 4]
    assert common
    for each in common:
        assert free[each].limit is paced[each].limit is None
        assert paced[each].wall_s > 2 * free[each].wall_s
        assert "quota-bound: waiting to publish at most 1 messages a second" in paced[each].reason


def test_a_run_that_could_not_publish_in_time_is_refused_for_the_quota() -> None:
    """Each rank sends 40 messages after each layer, ten of them at once and the others at its share."""
    edges = tuple(Edge(source, (1 - source,), np.arange(1, dtype=np.int32)) for source in (0, 1) for _ in range(40))
    plan = ExchangePlan(2, (edges,) * 40)
    work = Work(np.ones((41, 2), np.int64), (8,) * 41, np.full(2, 1000, np.int64))
    cuts = {1: CUTS[1], 2: Cut(plan, work, dense_payloads(plan, samples=SAMPLES, features=8))}

    def queue(quota: float) -> Option:
        found = plan_options(cuts, Question(SAMPLES), load_timing(publish_quota=quota), load_prices()).options
        return next(option for option in found if option.variant == "queue" and option.micro_batches == 1)

    # After its burst a rank publishes 30 messages a layer at half of the quota: within the stall clock or not.
    assert queue(1.05).limit == "quota"
    assert "function would run for" in (queue(1.05).problem or "")
    assert "of it is waiting to publish at most 1 messages a second" in (queue(1.05).problem or "")
    assert "ranks wait 60 s for a message" in (queue(0.95).problem or "")
    # 40 layers of 40 messages at half of the quota: within 1,800 s or not.
    assert queue(1.6).limit == "quota"
    assert queue(1.9).limit is None


def test_long_functions_need_a_longer_timeout_than_a_stack_has_by_default() -> None:
    work, seen = CUTS[1].work, set()
    for factor in np.geomspace(1e5, 1e7, 9):
        slow = replace(CUTS[1], work=replace(work, connections=work.connections * factor))
        for option in asked({1: slow}).options:
            if option.variant != "serial":
                continue
            # The caller waits for little more than the function's time.
            said = (option.limit == "invocation", "timeout_s" in option.reason)
            if option.wall_s < 900:
                assert said == (False, False)
            elif 910 < option.wall_s < 1800:
                assert said == (False, True)
            elif option.wall_s > 1810:
                assert said == (True, False)
                assert "may run for 1800 s" in (option.problem or "")
            seen.add(said)
    assert len(seen) == 3


SLOW = {
    workers: replace(one, work=replace(one.work, connections=one.work.connections * 10**4))
    for workers, one in CUTS.items()
    if workers <= 2
}
"""Networks whose runs take half an hour to hours."""


def test_a_run_that_outlives_its_functions_is_handed_on() -> None:
    refused, planned = asked(SLOW), asked(SLOW, checkpoint_every="auto")
    by_name = {(o.name, o.memory_mb, o.micro_batches): o for o in refused.options}
    assert all(
        option.attempts == 1 for option in planned.options if option.variant == "direct"
    )  # which lives for hours
    long = [option for option in planned.options if option.attempts > 1 and option.problem is None]
    assert {"serial", "queue", "object"} <= {option.variant for option in long}
    for option in long:
        assert option.attempts >= option.wall_s / 900
        assert option.checkpoint_every > 0
        said = f"a checkpoint every {option.checkpoint_every} layers, {option.attempts} invocations in a row"
        assert said in option.reason
        before = by_name.get((option.name, option.memory_mb, option.micro_batches))
        if before is not None and before.limit is not None:  # none if it takes less than half an hour
            assert before.limit == "invocation"
            assert "--checkpoint-every auto hands the run on" in (before.problem or "")
            # What is lost, and starting again, cost time and money, but not as much as another run.
            assert before.wall_s < option.wall_s < 2 * before.wall_s
            assert (before.usd or 0) < (option.usd or 0) < 2 * (before.usd or 0)


def test_checkpoints_as_often_as_asked_cost_what_they_store() -> None:
    rare, often = (asked(SLOW, checkpoint_every=every) for every in (3, 2))
    for advice, every in ((rare, 3), (often, 2)):
        queues = [option for option in advice.options if option.variant == "queue" and option.problem is None]
        assert {option.checkpoint_every for option in queues} == {every}
    short = {(option.name, option.memory_mb): option for option in asked().options}
    for option in asked(checkpoint_every=2).options:
        before = short.get((option.name, option.memory_mb))
        if option.variant == "object" and before is not None:
            puts = (30 - 1) // 2 * option.workers
            assert option.usd == pytest.approx((before.usd or 0) + puts * 5e-6, rel=0.01)


def test_what_no_checkpoint_can_hand_on_says_so() -> None:
    slower = {
        workers: replace(one, work=replace(one.work, connections=one.work.connections * 100))
        for workers, one in SLOW.items()
    }
    planned = asked(slower, checkpoint_every="auto").options
    stuck = [option for option in planned if option.variant in {"queue", "object"}]
    assert stuck
    assert all(o.limit == "invocation" and "no checkpoint would be complete" in (o.problem or "") for o in stuck)


def test_short_runs_want_no_checkpoints() -> None:
    chosen = [option for option in asked(checkpoint_every="auto").options if not option.is_server]
    assert {(option.checkpoint_every, option.attempts) for option in chosen} == {(0, 1)}


def test_a_longer_time_limit_needs_fewer_attempts() -> None:
    def attempts(timeout_s: float) -> int:
        found = asked(SLOW, checkpoint_every=2, timeout_s=timeout_s).options
        return min(o.attempts for o in found if (o.variant, o.workers) == ("object", 2) and o.problem is None)

    assert 1 < attempts(1800.0) < attempts(1300.0) < attempts(900.0)


def test_break_even_is_where_the_costs_meet() -> None:
    found = asked()
    even = found.break_even
    functions = found.best_functions
    assert even is not None
    assert functions is not None
    assert functions.usd is not None
    assert even.queries_a_day * functions.usd == pytest.approx(even.usd_a_day)
    more = asked(queries_a_day=even.queries_a_day * 3)
    assert any(o.usd_a_day is not None and (o.usd or 1) < functions.usd for o in more.options)


def test_clusters_are_priced_by_the_server_and_exchange_by_mpi() -> None:
    found = asked(queries_a_day=500)
    by_name = {option.name: option for option in found.options}
    one, two = by_name["always-on server c5.2xlarge"], by_name["always-on cluster 2 x c5.2xlarge"]
    assert two.usd_a_day == pytest.approx(2 * (one.usd_a_day or 0.0))
    assert two.is_server
    assert "always-on cluster 4 x c5.2xlarge" in by_name
    job = by_name["job cluster 2 x c5.2xlarge"]
    assert job.wall_s > 60
    assert job.usd == pytest.approx(2 * max(60.0, job.wall_s) / 3600 * 0.34)
    slow = load_timing().with_values("slow", {"mpi.latency_s": Sourced(10.0, "a test")})
    late = plan_options(CUTS, Question(SAMPLES, queries_a_day=500), slow, load_prices())
    (later,) = (option for option in late.options if option.name == two.name)
    # So much later after each layer that exchanges anything, but for what computing hides.
    exchanges = sum(map(bool, CUTS[2].plan.exchanges))
    assert later.wall_s - two.wall_s == pytest.approx(exchanges * 10.0, rel=0.01)


def test_limits_that_nothing_meets_say_what_comes_closest() -> None:
    with pytest.raises(SettingError, match=r"the fastest is .* the cheapest "):
        _ = asked(deadline_s=0.001).best


def test_buckets_share_the_requests_of_objects() -> None:
    slow = load_timing().with_values("slow", {"prefix.gets_per_s": Sourced(0.5, "a test")})

    def wall_s(variant: str, buckets: int) -> float:
        found = plan_options(CUTS, Question(SAMPLES, buckets=buckets), slow, load_prices()).options
        return min(option.wall_s for option in found if (option.variant, option.workers) == (variant, 2))

    pairs = sum(len({(edge.source, to) for edge in edges for to in edge.targets}) for edges in CUTS[2].plan.exchanges)
    assert wall_s("object", 1) - wall_s("object", 2) == pytest.approx(pairs / 0.5 / 2, rel=0.05)
    assert wall_s("queue", 1) == wall_s("queue", 2)


def test_larger_messages_are_fewer_that_wait_for_the_quota() -> None:
    slow = load_timing().with_values("slow", {PUBLISH_QUOTA: Sourced(10.0, "a test")})
    samples = 40 * SAMPLES

    def wall_s(variant: str, message_bytes: int) -> float:
        question = Question(samples, budget_usd=100.0, message_bytes=message_bytes)  # the fastest are shown
        found = plan_options(CUTS, question, slow, load_prices()).options
        return min(option.wall_s for option in found if (option.variant, option.workers) == (variant, 2))

    small, large = (wall_s("queue", size) for size in (256 * 1024, 1024 * 1024))
    longest = [40 * float(sizes.max()) for sizes in CUTS[2].payloads.exchanges if sizes.size]  # one edge a rank
    fewer = sum(math.ceil(size / 195_840) - math.ceil(size / 785_664) for size in longest)
    assert small - large == pytest.approx(fewer / (10 / 2), rel=0.05)  # each rank has half of the quota
    assert wall_s("object", 256 * 1024) == wall_s("object", 1024 * 1024)


def test_functions_are_cold_unless_they_are_used_often_or_said_to_be_warm() -> None:
    assert [asked(queries_a_day=often).is_cold for often in (None, 287, 288)] == [True, True, False]
    assert [asked(queries_a_day=500, cold=cold).is_cold for cold in (True, False)] == [True, False]
    assert asked(cold=True).to_json()["is_cold"] is True


def test_cold_environments_are_billed_for_their_init_phase() -> None:
    timing = load_timing()
    longer = timing.with_values("longer", {"init.s": Sourced(timing["init.s"] + 0.01, "a test")})

    def cost(times: Timing, variant: str, replicas: int, *, cold: bool) -> tuple[int, int, float]:
        found = plan_options(CUTS, Question(SAMPLES, cold=cold), times, load_prices()).options
        one = next(option for option in found if (option.variant, option.replicas) == (variant, replicas))
        return one.workers * one.replicas, one.memory_mb or 0, one.usd or 0.0

    for variant, replicas in (("serial", 1), ("serial", 2), ("queue", 1), ("object", 1)):
        before, after = (cost(times, variant, replicas, cold=True) for times in (timing, longer))
        functions, memory_mb, usd = before
        mb = functions * memory_mb + replicas * 512  # each replica has a coordinator
        assert after[:2] == (functions, memory_mb)
        assert after[2] - usd == pytest.approx(0.01 * mb / 1024 * 1.66667e-5)
        assert cost(longer, variant, replicas, cold=False) == cost(timing, variant, replicas, cold=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"deadline_s": 0.0}, "deadline must be more than 0"),
        ({"budget_usd": -1.0}, "budget must be more than 0"),
        ({"queries_a_day": 0.0}, "more than 0 queries"),
        ({"largest_mb": 20_000}, "largest_mb must be 128 to 10,240"),
        ({"architecture": "mips"}, "architecture must be"),
        ({"buckets": 21}, "buckets must be 1 to 20"),
        ({"message_bytes": 1 << 21}, "message_bytes must be 2,048 to 1,048,576"),
        ({"checkpoint_every": 1}, "checkpoint_every must be 0 or a whole number of at least 2"),
        ({"timeout_s": 1801.0}, "timeout_s must be more than 0 and at most 1800"),
    ],
)
def test_questions_that_make_no_sense(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        Question(10, **wrong)  # type: ignore[arg-type]


def test_the_network_as_one_function_runs_it_is_needed() -> None:
    with pytest.raises(SettingError, match="add a cut for 1 worker"):
        asked({2: CUTS[2]})


# --- long plans are thinned out ---------------------------------------------------------------------------------------


def even(workers: int, layers: int) -> Cut:
    """All exchanges are the same."""
    one = cut(workers, layers)
    plan = ExchangePlan(workers, (one.plan.exchanges[3],) * (layers - 1))
    return Cut(plan, one.work, dense_payloads(plan, samples=SAMPLES, features=96))


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_thinned_plans_count_what_the_whole_counts(channel: str) -> None:
    whole = even(4, 61)
    settings = RunSettings(workers=4)
    thinned = thin(whole, 100)
    assert len(thinned.cut.plan.exchanges) < 30
    found = count_exchange(thinned.cut.plan, thinned.cut.payloads, settings, channel, weights=thinned.exchange_weights)
    expected = count_exchange(whole.plan, whole.payloads, settings, channel)
    assert sum(thinned.weights) == pytest.approx(61)
    assert found.received_bytes == pytest.approx(expected.received_bytes, rel=0.01)
    for counter, other in ((found.requests, expected.requests), (found.billed_units, expected.billed_units)):
        assert counter.keys() == other.keys()
        assert all(counter[kind] == pytest.approx(other[kind], rel=0.05, abs=3) for kind in other)


def test_short_plans_stay_whole() -> None:
    thinned = thin(CUTS[4], 10**6)
    assert thinned.cut.plan == CUTS[4].plan
    assert set(thinned.weights) == {1.0}


@given(st.integers(1, 5000), st.integers(1, 8))
def test_samples_change_sizes_in_proportion(samples: int, micro_batches: int) -> None:
    before = CUTS[2].payloads
    after = before.scaled(samples, micro_batches)
    assert sum(after.samples) == samples
    for one, other in zip(before.exchanges, after.exchanges, strict=True):
        assert other.sum() == pytest.approx(one.sum() * samples / SAMPLES)


def test_memory_grows_with_shard_and_samples_and_falls_with_micro_batches() -> None:
    one = CUTS[2]
    shard = float(one.work.shard_bytes.max())

    def held(payloads: Payloads, shard_bytes: float = shard) -> float:
        return rank_bytes(one.plan, one.work.inputs, shard_bytes, payloads)

    base = held(one.payloads)
    assert base < held(one.payloads.scaled(10 * SAMPLES, 10)) < held(one.payloads.scaled(10 * SAMPLES))
    assert held(one.payloads, shard + 10**9) == pytest.approx(base + 1.15 * 10**9)
    of_function = function_mb(one.plan, one.work.inputs, shard, one.payloads)
    assert of_function * 2**20 == pytest.approx(MARGIN * (base - PROCESS_BYTES + FUNCTION_BYTES))


def test_checkpoints_hold_three_times_the_rows_of_a_rank() -> None:
    one = CUTS[2]

    def held(**more: bool) -> float:
        return rank_bytes(one.plan, one.work.inputs, float(one.work.shard_bytes.max()), one.payloads, **more)

    rows = 96 // 2
    assert held(checkpoints=True) - held() == pytest.approx(3 * 4 * SAMPLES * rows)
    alone = CUTS[1]  # which sends no rows: dense values, of four bytes each
    assert row_bytes(alone.plan, alone.payloads).tolist() == [4 * SAMPLES] * 29


def test_functions_have_memory_for_the_checkpoints_of_their_runs() -> None:
    one, settings = CUTS[2], RunSettings(workers=2, checkpoint_every=4)
    shards = [SimpleNamespace(size=int(size)) for size in one.work.shard_bytes]
    platform = FunctionPlatform.__new__(FunctionPlatform)
    manifest = SimpleNamespace(widths=(*one.work.inputs, 96), shards=shards)
    platform._stored = SimpleNamespace(manifest=manifest, plan=one.plan)  # type: ignore[assignment]
    spec = RunSpec("0" * 32, 0, "0" * 32, SAMPLES, 96, 0.0, settings)
    bare = replace(spec, settings=RunSettings(workers=2))
    more_mb = MARGIN * 3 * 4 * SAMPLES * 48 / 2**20
    assert platform._need_mb(spec) - platform._need_mb(bare) == pytest.approx(more_mb)


@pytest.mark.parametrize("network", [fsd.random_network([20, 30, 5], connections=4), fsd.graph_challenge(1024, 2)])
def test_one_function_owns_all(network: fsd.Network, tmp_path: Path) -> None:
    expected = rank_work(network, Partition(1, tuple(np.zeros(width, np.int32) for width in network.widths[1:])))
    network.save(tmp_path / "net")
    for one in (network, fsd.Network.load(tmp_path / "net")):
        found = whole_work(one)
        np.testing.assert_array_equal(found.connections, expected.connections)
        np.testing.assert_array_equal(found.shard_bytes, expected.shard_bytes)
        assert found.inputs == expected.inputs
