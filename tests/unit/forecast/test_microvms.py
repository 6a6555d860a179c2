"""MicroVMs as ranks: times, requests, billed time and quotas, compared with results computed by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fsd_inference.config import RunSettings
from fsd_inference.cost.prices import load_prices
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.counts import count_exchange
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.launch import launch_s
from fsd_inference.forecast.microvms import SNAPSHOT_GB, microvm_limit, microvm_sizes, microvm_time, most_connections
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.payloads import Payloads, dense_payloads
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.times import predict_times
from fsd_inference.forecast.timing import load_timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import MICROVM_S
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from fsd_inference.simulator import simulate
from tests.support.scenarios import random_plan, scenario, timing

ROW = np.arange(1, dtype=np.int32)
STAR = ExchangePlan(4, ((Edge(0, (1, 2, 3), ROW), Edge(1, (3,), ROW)),))
"""Rank 0 sends the same row to all others, rank 1 one to rank 3: rank 3 receives from two ranks, no rank from more."""
SIZES = Payloads((1,), (np.array([[4000.0], [2000.0]]),), 0.0, (1.0,), (1.0,))
WORK = Work(np.zeros((2, 4), np.int64), (4, 4), np.ones(4, np.int64))
SETTINGS = RunSettings(workers=4, branching=4)


def exchange_s(memory_mb: int, **values: float) -> float:
    times = predict_times(STAR, WORK, SIZES, SETTINGS, "direct", timing(**values), memory_mb=memory_mb)
    return times.layers_s[0]


def test_an_exchange_takes_its_latency_and_the_time_in_the_slowest_endpoint() -> None:
    assert exchange_s(512, frame__median_s=0.25, frame__p99_s=0.25) == pytest.approx(0.25)
    # Rank 3 receives 6 kB; an endpoint passes 1 kB/s for each of the 1, 2 or 16 vCPUs of the burst.
    for memory_mb, vcpus in ((512, 1), (1024, 2), (8192, 16)):
        found = exchange_s(memory_mb, endpoint__bytes_per_vcpu_s=1000.0)
        assert found == pytest.approx(6000 / 1000 / vcpus)
    # Rank 0 sends each of its three targets a copy of its own.
    assert exchange_s(512, cpu__put_bytes_per_s=1000.0) == pytest.approx(3 * 4000 / 1000)
    assert exchange_s(512, network__bytes_per_s=1000.0) == pytest.approx((3 * 4000 + 6000) / 1000)
    assert exchange_s(512, cpu__put_s=0.5, cpu__get_s=0.25) == pytest.approx(3 * 0.5 + 2 * 0.25)


def test_a_simulated_run_waits_for_launches_and_connections_down_the_tree() -> None:
    """Each rank of the tree is launched, gets its tokens and connects before it launches its children."""
    nothing = simulate(scenario(4, 3, channel="direct"))
    for values, levels in (
        ({"launch__median_s": 3.0, "launch__p99_s": 3.0}, 3),  # rank 0, 1 and 2, and the child of one of these
        ({"endpoint__connect_s": 0.5}, 3),
    ):
        it = scenario(4, 3, channel="direct", times=timing(**values))
        more = simulate(it).wall_s - nothing.wall_s
        assert more == pytest.approx(levels * next(iter(values.values())), rel=1e-3)


def test_microvms_beyond_the_burst_are_launched_at_their_rate() -> None:
    times = timing(microvms__burst=5.0, microvms__per_s=5.0, launch__median_s=3.0, launch__p99_s=3.0)
    assert launch_s(Tree(26, 25), times, microvms=True) == pytest.approx(3.0 + (25 - 5) / 5, abs=0.21)
    assert launch_s(Tree(26, 25), times) == 0.0  # functions have a rate of their own


@pytest.mark.parametrize("output", ["rows", "argmax"])
def test_requests_are_connections_and_bytes_those_of_each_copy(output: str) -> None:
    settings = replace(SETTINGS, output=output)
    found = count_exchange(STAR, SIZES, settings, "direct")
    objects = count_exchange(STAR, SIZES, settings, "object")
    # 4 pairs exchange rows; ranks 1 to 3 send rank 0 that they have ended.
    assert found.requests == {"microvm.connect": 4 + 3}
    assert (found.frames, found.wire_bytes) == (objects.frames, objects.wire_bytes)
    assert found.received_bytes == found.body_bytes == objects.received_bytes
    assert found.received_bytes == pytest.approx(3 * 4000 + 2000, abs=7 * 40 + 8 * 3)


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_simulator_counts_the_same(micro_batches: int) -> None:
    it = scenario(5, 6, channel="direct", micro_batches=micro_batches, samples=40)
    usage, found = simulate(it).usage, count_exchange(it.plan, it.payloads, it.settings, "direct")
    assert usage.frames == found.frames
    assert usage.requests["microvm.connect"] == found.requests["microvm.connect"]
    assert usage.received_bytes == pytest.approx(found.received_bytes, abs=200)  # each message is rounded
    assert usage.body_bytes == pytest.approx(found.body_bytes, abs=200)
    assert usage.requests["microvm.run"] == usage.requests["microvm.terminate"] == 5
    assert not any(count for kind, count in usage.requests.items() if kind.startswith(("sns.", "sqs.", "lambda.")))


def test_billed_time_is_whole_seconds_and_burst_beyond_the_baseline() -> None:
    found = microvm_time(2048, [1.2, 3.0], 10.0)
    assert (found.seconds, found.launches, found.snapshot_gb) == (2 + 3, 2, SNAPSHOT_GB)
    assert found.burst_vcpu_s == pytest.approx((4 - 1) * 10.0)


def test_sizes_hold_memory_and_connections() -> None:
    assert most_connections(STAR) == 2
    assert microvm_sizes(300.0, 2) == [512, 1024, 2048, 4096, 8192]
    assert microvm_sizes(600.0, 8) == [1024, 2048, 4096, 8192]
    assert microvm_sizes(300.0, 17) == [2048, 4096, 8192]
    assert microvm_sizes(9000.0, 2) == [8192]
    assert microvm_limit(4, 8, 512, 300.0, 10.0) is None
    assert microvm_limit(4, 8, 8192, 9000.0, 10.0) == (
        "memory",
        "memory does not fit: it needs 9,000 MB, the largest MicroVM has 8,192",
    )
    assert microvm_limit(200, 129, 8192, 300.0, 10.0) == (
        "quota",
        "129 ranks send to one, and a MicroVM of 8,192 MB holds 128 connections",
    )
    assert microvm_limit(51, 2, 8192, 300.0, 10.0) == (
        "quota",
        "the MicroVMs have 408 GB, and an account 400 GB by default",
    )
    limited = microvm_limit(4, 2, 512, 300.0, MICROVM_S + 1)
    assert limited is not None
    assert limited[0] == "invocation"


def test_the_planner_prices_microvms_by_the_second_and_the_coordinator_as_a_function() -> None:
    _, plan, work = random_plan(4, 30, 96, seed=4)
    cut = Cut(plan, work, dense_payloads(plan, samples=1000, features=96))
    _, whole, all_work = random_plan(1, 30, 96, seed=1)
    cuts = {1: Cut(whole, all_work, dense_payloads(whole, samples=1000, features=96)), 4: cut}
    times = load_timing()
    found = plan_options(cuts, Question(1000, cold=False), times, load_prices())
    option = next(one for one in found.options if one.variant == "direct")
    assert option.is_modelled_only
    assert option.memory_mb in {512, 1024}
    vcpus = option.memory_mb / 512  # of the burst; a quarter of it is the baseline
    settings = RunSettings(
        workers=4, branching=option.branching, micro_batches=option.micro_batches, threads=math.ceil(vcpus)
    )
    payloads = cut.payloads.scaled(1000, option.micro_batches)
    run = predict_times(plan, work, payloads, settings, "direct", times, memory_mb=option.memory_mb, warm=4)
    assert option.wall_s == pytest.approx(run.wall_s)
    assert option.wall_s > 2 * 3.54  # rank 0 is launched, and then the others
    seconds = 4 * math.ceil(run.functions_s / 4)
    microvms = seconds * (vcpus / 4 * 2.76944e-5 + option.memory_mb / 1024 * 3.6667e-6)
    microvms += 4 * sum(run.compute_s) * vcpus * 3 / 4 * 2.76944e-5 + 4 * 0.6 * 0.0015467699
    microvms += 2 * count_exchange(plan, payloads, settings, "direct").received_bytes / 1e9 * 0.01
    coordinator = 512 / 1024 * run.wall_s * 1.66667e-5 + 2e-7
    assert option.services is not None
    assert option.services["Lambda"] == pytest.approx(microvms + coordinator)
    assert option.services["SNS"] == 0
    launches = 4 * 0.6 * 0.0015467699
    assert option.reason.endswith(f"; launches {launches / (option.usd or 0):.0%} of the cost")


def test_a_simulated_microvm_has_one_of_the_sizes_and_keeps_the_quotas() -> None:
    with pytest.raises(SettingError, match="a MicroVM has 512, 1024, 2048, 4096, 8192 MB of memory, not 1769"):
        scenario(3, 3, channel="direct", memory_mb=1769)
    ring = ExchangePlan(10, (tuple(Edge(rank, (0,), ROW) for rank in range(1, 10)),))
    it = scenario(10, 2)
    with pytest.raises(SettingError, match="9 ranks send to one, and a MicroVM of 512 MB holds 8 connections"):
        replace(it, channel="direct", memory_mb=512, plan=ring)
