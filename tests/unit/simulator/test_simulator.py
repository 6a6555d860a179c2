"""The simulator, compared with results computed by hand and the virtual-time harness, and properties of any run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.engine.messages import Compute, Send
from fsd_inference.errors import SettingError, StallError
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.timing import Sourced, load_timing
from fsd_inference.forecast.work import rank_work
from fsd_inference.partitioning import exchange_plan
from fsd_inference.run_report import RunReport
from fsd_inference.simulator import Chances, Scenario, simulate, with_seed
from tests.support.frame_by_frame import publish_batches, step_frames
from tests.support.one_by_one import Host, simulate_one_by_one
from tests.support.scenarios import latencies, scenario, timing
from tests.support.schedules import Case, cases

CHANNELS = ("local", "queue", "object", "direct", "mpi")
plans = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
any_channel = st.sampled_from(CHANNELS)


def compute_s(it: Scenario, layer: int, rank: int) -> float:
    return float(it.work.connections[layer, rank]) * sum(it.payloads.samples) / 1e9


def critical_path(it: Scenario) -> float:
    """Return when the last rank has computed its last layer, where nothing else takes time."""
    workers, layers = it.work.workers, it.work.layers
    ends, boundaries = [0.0] * workers, [0.0] * workers
    for layer in range(layers):
        sent = {edge.source: set[int]() for edge in (it.plan.exchanges[layer] if layer < layers - 1 else ())}
        for edge in it.plan.exchanges[layer] if layer < layers - 1 else ():
            sent[edge.source] |= set(edge.rows.tolist())
        starts = list(ends)
        for edge in it.plan.exchanges[layer - 1] if layer else ():
            for target in edge.targets:
                starts[target] = max(starts[target], boundaries[edge.source])
        for rank in range(workers):
            whole = compute_s(it, layer, rank)
            owned = it.partition.rows(layer, rank).size
            share = len(sent.get(rank, ())) / owned if it.settings.overlap and sent.get(rank) else 1.0
            boundaries[rank], ends[rank] = starts[rank] + share * whole, starts[rank] + whole
    return max(ends)


@given(plans, any_channel, st.booleans())
@settings(max_examples=60, deadline=None)
def test_without_latency_a_run_is_the_critical_path_of_its_computing(
    plan: tuple[int, int, int], channel: str, overlap: bool
) -> None:
    workers, layers, seed = plan
    it = scenario(workers, layers, seed=seed, channel=channel, overlap=overlap)
    found = simulate(it)
    assert found.error is None
    if channel != "object":  # an object that is not there yet is looked for now and then
        assert found.wall_s == pytest.approx(critical_path(it), rel=1e-9)
    else:
        assert found.wall_s >= critical_path(it) - 1e-9


@given(st.integers(1, 6), st.integers(0, 1000), any_channel)
@settings(max_examples=20, deadline=None)
def test_one_rank_takes_the_serial_time(layers: int, seed: int, channel: str) -> None:
    it = scenario(1, layers, seed=seed, channel=channel, times=timing(cpu__step_s=0.01))
    assert simulate(it).wall_s == pytest.approx(sum(compute_s(it, k, 0) for k in range(layers)) + 0.01 * layers)


@given(plans, any_channel, st.integers(1, 3), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_equal_seeds_give_equal_runs(plan: tuple[int, int, int], channel: str, micro_batches: int, chance: int) -> None:
    workers, layers, seed = plan
    times = timing(**latencies(0.03, 0.1), cpu__step_s=0.001)
    it = scenario(workers, layers, seed=seed, channel=channel, micro_batches=micro_batches, times=times)
    it = replace(it, chances=Chances(chance, stragglers=0.3, slowdown=3.0))
    first, second, other = simulate(it), simulate(it), simulate(with_seed(it, chance + 1))
    assert first.report().to_json() == second.report().to_json()
    assert first.wall_s != other.wall_s


@given(plans, st.sampled_from(["queue", "local", "direct", "mpi"]), st.floats(1.0, 20.0))
@settings(max_examples=30, deadline=None)
def test_latency_alone_scales_a_run(plan: tuple[int, int, int], channel: str, factor: float) -> None:
    workers, layers, seed = plan
    rates = {"kernel__1__1": 1e9}
    one, more = (
        simulate(scenario(workers, layers, seed=seed, channel=channel, times=timing(**latencies(s, 3 * s), **rates)))
        for s in (0.02, 0.02 * factor)
    )
    assert more.wall_s == pytest.approx(factor * one.wall_s, rel=1e-3)


@given(plans, st.floats(0, 0.1), st.floats(0, 0.1))
@settings(max_examples=30, deadline=None)
def test_more_latency_is_never_faster(plan: tuple[int, int, int], base: float, more: float) -> None:
    workers, layers, seed = plan
    runs = [
        simulate(scenario(workers, layers, seed=seed, channel="mpi", times=timing(mpi__latency_s=latency)))
        for latency in (base, base + more)
    ]
    assert runs[1].wall_s >= runs[0].wall_s - 1e-9


@given(plans, st.integers(1, 3), st.sampled_from(["queue", "object"]), st.sampled_from([12, 20_000, 400_000]))
@settings(max_examples=40, deadline=None)
def test_what_is_sent_is_what_the_plan_says(
    plan: tuple[int, int, int], micro_batches: int, channel: str, samples: int
) -> None:
    workers, layers, seed = plan
    limits, times = ChannelLimits(ranks_a_topic=3), timing(kernel__1__1=1e6)
    of_run = {"channel": channel, "micro_batches": micro_batches, "samples": samples}
    it = scenario(workers, layers, seed=seed, times=times, limits=limits, **of_run)  # type: ignore[arg-type]
    usage = simulate(it).usage
    size = limits.queue_frame_bytes if channel == "queue" else limits.object_frame_bytes
    steps = list(step_frames(it.plan, it.payloads, size))
    gathers = workers - 1
    assert usage.frames == sum(len(step.frames) for step in steps) + gathers
    assert usage.wire_bytes == pytest.approx(
        sum(frame.size for step in steps for frame in step.frames) + 32 * gathers,
        abs=micro_batches * len(steps) + 1,
    )
    if channel == "queue":
        batches = sum(len(publish_batches(step.frames, limits)) for step in steps)
        assert usage.requests["sns.publish"] == batches + gathers
    else:
        claims_results_reports_input = 3 * workers + 1
        assert usage.requests["s3.put"] == len(steps) + gathers + claims_results_reports_input
    assert usage.retries == 0


@given(cases())
@settings(max_examples=25, deadline=None)
def test_ranks_do_the_same_as_under_the_harness(case: Case) -> None:
    """With one micro-batch the order of steps does not depend on time."""
    case = replace(case, micro_batches=1, output="rows")
    try:
        played = case.play()
    except Exception:  # noqa: BLE001 - a network that overflows is the harness's to test
        return
    if any(rank.finish is None or rank.finish.error is not None for rank in played.ranks):
        return
    plan = exchange_plan(case.network, case.partition)
    run_settings = RunSettings(workers=case.partition.workers, branching=case.branching, overlap=case.overlap)
    it = Scenario(
        case.partition,
        plan,
        rank_work(case.network, case.partition),
        dense_payloads(plan, samples=len(case.x)),
        run_settings,
        "queue",
        timing(**latencies(0.01, 0.05), cpu__step_s=0.001),
    )
    found = simulate(it)
    assert found.error is None
    for rank in found.ranks:
        mine = [action for _, number, action in played.log if number == rank.rank]
        computed = [(a.step.layer, a.phase.value) for a in mine if isinstance(a, Compute)]
        assert [(i.layer, i.name) for i in rank.intervals if i.name in {"boundary", "interior", "all"}] == computed
        sent = [a.step.layer for a in mine if isinstance(a, Send)]
        assert sorted(i.layer for i in rank.intervals if i.name == "send") == sent


def test_each_rank_is_started_after_its_parent() -> None:
    found = simulate(scenario(9, 2, times=timing(**latencies(0.05, 0.2))))
    started = {rank.rank: rank.started for rank in found.ranks}
    assert sorted(started) == list(range(9))
    assert all(started[rank.rank] > started[rank.starter] for rank in found.ranks if rank.starter is not None)
    assert found.launch_s > max(started.values()) - started[0] > 0


def test_cold_environments_are_waited_for() -> None:
    times = timing(cold__median_s=2.0, cold__p99_s=2.0)
    cold = simulate(scenario(4, 2, times=times))
    warm = simulate(scenario(4, 2, times=times, chances=Chances(warm=100)))
    assert cold.wall_s == pytest.approx(warm.wall_s + 4 * 2.0)  # coordinator, rank 0, its child, that one's


@pytest.mark.parametrize(("warm", "cold_workers", "cold_coordinators"), [(0, 4, 1), (1, 4, 0), (3, 2, 0), (9, 0, 0)])
def test_init_phases_are_billed(warm: int, cold_workers: int, cold_coordinators: int) -> None:
    bare, billed = (
        simulate(scenario(4, 2, times=timing(init__s=init_s), chances=Chances(warm=warm))).function_times()
        for init_s in (0.0, 7.0)
    )
    more = [later.seconds - earlier.seconds for earlier, later in zip(bare, billed, strict=True)]
    assert more == pytest.approx([cold_workers * 7.0, cold_coordinators * 7.0])


def test_environments_beyond_the_burst_come_at_their_rate() -> None:
    times = timing(environments__burst=4, environments__per_s=2)
    found = simulate(scenario(10, 1, branching=9, times=times))
    begun = sorted(rank.begun for rank in found.ranks)
    assert begun[-1] - begun[0] == pytest.approx((11 - 4) / 2, abs=0.6)


def test_a_straggler_slows_the_run() -> None:
    it = scenario(6, 4, times=timing())
    slow = replace(it, chances=Chances(stragglers=1.0, slowdown=5.0))
    assert simulate(slow).wall_s == pytest.approx(5 * simulate(it).wall_s)


@pytest.mark.parametrize("seed", range(6))
def test_slow_processors_are_named_in_the_report(seed: int) -> None:
    """Each rank has as much work in each layer; a processor of a sixth of the speed is a straggler."""
    it = scenario(6, 60, times=timing())
    even = replace(it, work=replace(it.work, connections=np.full_like(it.work.connections, 50_000_000)))
    report = simulate(replace(even, chances=Chances(seed, stragglers=0.2, slowdown=6.0))).report()
    least = min(rank.compute_s for rank in report.ranks)
    slow = {rank.rank for rank in report.ranks if rank.compute_s > 3 * least}
    slow = slow if 2 * len(slow) <= 6 else set()  # where most are slow, there is no straggler
    assert {straggler.rank for straggler in report.stragglers} == slow
    assert all(straggler.factor == pytest.approx(6.0, rel=0.1) for straggler in report.stragglers)


def test_throttled_requests_are_repeated_and_counted() -> None:
    times = timing(account__messages_per_s=5.0, throttle__burst_s=1.0)
    free, found = simulate(scenario(5, 3)), simulate(scenario(5, 3, times=times))
    assert found.error is None or found.error.retryable
    assert found.usage.retries > 0
    assert found.usage.requests["sns.publish"] >= free.usage.retries + found.usage.retries
    assert found.wall_s > free.wall_s


@pytest.mark.parametrize("quota", [300.0, 1_500.0])
def test_a_run_beyond_the_publishing_quota_ends_right_and_in_the_time_that_the_quota_takes(quota: float) -> None:
    it = scenario(16, 12, micro_batches=8, samples=16)
    free = simulate(it)
    paced = simulate(replace(it, timing=timing(account__messages_per_s=quota)))
    assert paced.error is None
    assert paced.usage.frames == free.usage.frames
    published = free.usage.billed_units["sns.publish.messages"]
    assert published > 10 * 300
    # Each rank has its share alone: the run ends when the busiest rank has published, after its burst.
    busiest = max(sum(frames for _, frames, _ in rank.sent) for rank in free.ranks)
    needed_s = (busiest - max(10.0, quota / 16)) / (quota / 16)
    assert needed_s <= paced.wall_s <= 1.5 * needed_s + 2


def test_the_quota_is_the_accounts_and_not_a_topics() -> None:
    """A run with two topics is not faster than one with one."""
    times = timing(account__messages_per_s=300.0)
    one = scenario(8, 6, micro_batches=8, samples=16, times=times)
    two = replace(one, limits=replace(one.limits, ranks_a_topic=4))
    assert simulate(two).wall_s == pytest.approx(simulate(one).wall_s, rel=0.1)


def test_a_bucket_has_the_rate_of_one_partition_and_more_buckets_have_more() -> None:
    times = timing(prefix__puts_per_s=8.0, throttle__burst_s=1.0)
    one, four = (simulate(scenario(5, 4, channel="object", times=times, buckets=count)) for count in (1, 4))
    assert one.error is four.error is None
    assert one.usage.retries > 0
    assert four.usage.retries == 0
    assert one.wall_s > four.wall_s


def test_objects_that_a_bucket_refuses_for_long_are_asked_for_until_the_stall_clock() -> None:
    it = scenario(5, 3, channel="object", times=timing(prefix__gets_per_s=1.0))
    found = simulate(it)
    assert found.error is None
    assert found.usage.retries > found.usage.requests["s3.put"]
    short = replace(it, settings=replace(it.settings, clocks=Clocks(stall_s=3.0)))
    assert simulate(short).error is not None


def test_a_rank_that_is_far_too_slow_ends_the_run() -> None:
    it = scenario(3, 4, times=timing(kernel__1__1=1e-5))
    it = replace(it, settings=replace(it.settings, clocks=Clocks(stall_s=1.0, run_s=500.0)))
    found = simulate(it)
    assert isinstance(found.error, StallError)
    assert found.error.operation == "receive"


@pytest.mark.parametrize(
    ("channel", "kind"), [("queue", "publish"), ("queue", "receive"), ("object", "put"), ("object", "get")]
)
def test_each_kind_of_request_has_work_of_its_own(channel: str, kind: str) -> None:
    """A run takes longer by the caller's work for a request and for its bytes, and not by that of the other channel."""
    plain, worked, carried = (
        simulate(scenario(3, 6, channel=channel, times=timing(**values))).wall_s
        for values in ({}, {f"cpu__{kind}_s": 0.5}, {f"cpu__{kind}_bytes_per_s": 1e3})
    )
    assert worked > plain + 3 * 0.5
    assert carried > plain + 0.5
    if channel == "object":
        other = timing(cpu__publish_s=9.0, cpu__receive_s=9.0, cpu__open_queue_s=9.0, cpu__message_s=9.0)
        assert simulate(scenario(3, 6, channel=channel, times=other)).wall_s == plain


def test_clients_of_queues_are_opened_before_a_rank_runs() -> None:
    slow = timing(cpu__open_queue_s=2.0)
    assert simulate(scenario(1, 1, channel="queue", times=slow)).wall_s == pytest.approx(
        2.0 + simulate(scenario(1, 1, channel="queue", times=timing())).wall_s
    )
    assert simulate(scenario(1, 1, channel="object", times=slow)).wall_s < 1.0


def test_a_lane_is_purged_only_where_that_takes_no_time() -> None:
    assert "sqs.purge" not in simulate(scenario(3, 2)).usage.requests
    assert simulate(scenario(3, 2, purged=8)).usage.requests["sqs.purge"] == 8


def test_a_run_can_be_priced_and_reported() -> None:
    it = scenario(4, 5, times=load_timing(), chances=Chances(warm=9))
    found = simulate(it)
    functions = found.function_times()
    assert functions[0].invocations == 4
    assert functions[0].seconds == pytest.approx(sum(r.ended - r.begun for r in found.ranks), abs=0.005)
    assert run_cost(found.usage, functions, load_prices(), samples=12).usd > 0
    report = found.report()
    assert RunReport.from_json(report.to_json()).to_json() == report.to_json()
    sent = [sum(to.frames for to in rank.sent_to or ()) for rank in report.ranks]
    assert sum(sent) >= found.usage.frames  # a frame for several targets counts for each
    for rank in report.ranks:
        assert len(rank.layers) == 5
        assert (rank.lived_s or 0.0) > 0
        assert rank.load_s > 0
    assert sum(layer.frames for rank in report.ranks for layer in rank.layers) == found.usage.frames - 3


def test_nonsense_is_refused() -> None:
    it = scenario(3, 3)
    with pytest.raises(SettingError, match="the settings are for 2 workers, but the plan has 3"):
        replace(it, settings=replace(it.settings, workers=2))
    with pytest.raises(SettingError, match="one of local, queue, object, direct, mpi, not 'pigeon'"):
        replace(it, channel="pigeon")
    with pytest.raises(SettingError, match="predicted for another plan"):
        replace(it, payloads=scenario(3, 4).payloads)
    with pytest.raises(SettingError, match="a fraction of 0 to 1"):
        Chances(stragglers=2.0)
    assert np.isfinite(simulate(it).wall_s)


# --- beside the same run, request by request -------------------------------------------------------------------------


@given(plans, st.sampled_from(["queue", "object"]), st.sampled_from([12, 400_000]))
@settings(max_examples=25, deadline=None)
def test_a_run_is_near_the_same_run_request_by_request(plan: tuple[int, int, int], channel: str, samples: int) -> None:
    workers, layers, seed = plan
    times = timing(**latencies(0.02, 0.02), kernel__1__1=1e6)
    it = scenario(workers, layers, seed=seed, channel=channel, times=times, samples=samples)
    one_by_one, found = simulate_one_by_one(it), simulate(it)
    assert found.error is one_by_one.error is None
    for name in ("frames", "wire_bytes", "body_bytes", "received_bytes"):
        assert getattr(found.usage, name) == pytest.approx(getattr(one_by_one.usage, name), abs=layers * workers)
    for kind in ("sns.publish", "s3.put"):
        assert found.usage.requests[kind] == one_by_one.usage.requests[kind]
    assert found.wall_s == pytest.approx(one_by_one.wall_s, rel=0.25)


@pytest.mark.parametrize("channel", ["queue", "object"])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("workers", [4, 12, 40])
def test_means_agree_with_the_same_runs_request_by_request(channel: str, micro_batches: int, workers: int) -> None:
    it = scenario(workers, 10, seed=1, channel=channel, times=load_timing(), samples=1000, micro_batches=micro_batches)
    pairs = [(simulate_one_by_one(one), simulate(one)) for one in (with_seed(it, seed) for seed in range(3))]
    for run in (0, 1):
        assert all(pair[run].error is None for pair in pairs)
    wall_s, requests = (
        np.array([[(run.wall_s, run.usage.requests.total()) for run in pair] for pair in pairs]).mean(0).T
    )
    assert wall_s[1] == pytest.approx(wall_s[0], rel=0.15)
    assert requests[1] == pytest.approx(requests[0], rel=0.16)  # polls of several micro-batches are not shared


def test_services_refuse_what_is_too_much() -> None:
    times = load_timing().with_values("few", {"prefix.gets_per_s": Sourced(40.0, "a test")})
    it = scenario(24, 6, seed=2, channel="object", times=times)
    for found in (simulate_one_by_one(it), simulate(it)):
        assert found.error is not None or found.usage.retries > 0


# --- a host that all ranks and the emulator share --------------------------------------------------------------------


def test_a_delay_is_added_to_every_exchange() -> None:
    it = scenario(2, 6, seed=3, branching=1)
    exchanges = sum(bool(exchange) for exchange in it.plan.exchanges)
    prompt, late = (simulate_one_by_one(it, Host.idle(8, delay_s=delay_s)).wall_s for delay_s in (0.0, 1.0))
    assert late - prompt >= 0.9 * exchanges


def test_processes_share_the_cores_of_a_host() -> None:
    it = scenario(4, 1, times=timing(cpu__begin_s=1.0))
    found = simulate_one_by_one(replace(it, settings=replace(it.settings, branching=3)), Host.idle(2))
    computing = max(compute_s(it, 0, rank) for rank in range(4))
    assert found.launch_s == pytest.approx(1.0 + 1.5, abs=0.02)  # rank 0; then three on two cores
    assert found.wall_s >= 2.5 + computing - 0.1


@pytest.mark.parametrize("others", [0.0, 0.5, 2.0])
def test_other_programs_take_their_part_of_a_host(others: float) -> None:
    it = scenario(1, 3, samples=1, times=timing(kernel__1__1=1e-3))
    alone = sum(compute_s(it, layer, 0) for layer in range(3)) * 1e3
    # A program that is there for half the time, when alone, wants a core as often as it gets one.
    assert simulate_one_by_one(it, Host.idle(1, others)).wall_s == pytest.approx(alone * (1 + others), rel=0.2)


@pytest.mark.parametrize("tick_s", [0.3, 1.7])
def test_a_queue_that_is_waited_for_is_looked_at_again_and_again(tick_s: float) -> None:
    """Rank 1 begins a second after rank 0, so that rank 0's first poll finds nothing, and looks again after a tick."""
    it = scenario(2, 2, times=timing(start__median_s=1.0, start__p99_s=1.0, kernel__1__1=1e9))
    ticking, at_once = (simulate_one_by_one(it, Host.idle(2, poll__tick_s=each)) for each in (tick_s, 0.0))
    waits = [
        max(each.end - each.start for each in run.ranks[0].intervals if each.name == "wait")
        for run in (ticking, at_once)
    ]
    assert waits[1] == pytest.approx(1.0, abs=1e-3)
    assert waits[0] == pytest.approx(np.ceil(1.0 / tick_s) * tick_s, abs=1e-3)
    polls = [run.usage.requests["sqs.receive"] for run in (ticking, at_once)]
    assert polls[0] <= polls[1]  # a look is none of the caller's requests, and a late one finds more


def test_an_emulator_on_the_host_works_for_looks_and_hidden_messages() -> None:
    """Its work is in turn, and grows with what was received."""

    def wall_s(**more: float) -> float:
        return simulate_one_by_one(scenario(4, 12), Host.idle(2, poll__tick_s=0.1, **more)).wall_s

    plain, looks = wall_s(), wall_s(server__look_s=0.01)
    hidden = wall_s(server__look_s=0.01, server__hidden_s=0.001)
    assert plain < looks < hidden
    assert wall_s(server__publish_s=0.05, server__message_s=0.01) > plain + 12 * 0.05
