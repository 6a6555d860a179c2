"""The time model, compared with results computed by hand and with the simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.errors import SettingError
from fsd_inference.forecast.exchange_times import ExchangeTotals
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.servers import server_times
from fsd_inference.forecast.times import predict_times
from fsd_inference.forecast.timing import load_timing
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from fsd_inference.simulator import simulate
from tests.support.scenarios import latencies, scenario, timing


@pytest.mark.parametrize("channel", ["local", "mpi", "queue", "object", "direct"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_it_agrees_with_the_simulator_on_the_whole(channel: str, micro_batches: int) -> None:
    it = scenario(6, 20, seed=1, channel=channel, times=load_timing(), samples=600, micro_batches=micro_batches)
    model = predict_times(it.plan, it.work, it.payloads, it.settings, channel, it.timing, memory_mb=it.memory_mb)
    found = simulate(it)
    assert model.wall_s == pytest.approx(found.wall_s, rel=0.5)
    billed_s = sum(rank.ended - rank.begun for rank in found.ranks)
    assert model.functions_s == pytest.approx(billed_s, rel=0.6)
    assert len(model.layers_s) == len(model.compute_s) == 20


@given(st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_one_rank_takes_the_serial_time(layers: int, seed: int) -> None:
    it = scenario(1, layers, seed=seed)
    model = predict_times(it.plan, it.work, it.payloads, it.settings, "serial", it.timing)
    expected = float(it.work.connections.sum()) * 12 / 1e9
    assert model.wall_s == pytest.approx(expected)
    assert sum(model.compute_s) == pytest.approx(expected)


@given(st.floats(0.001, 0.1), st.floats(1, 10), st.sampled_from(["queue", "object", "direct"]))
@settings(max_examples=20, deadline=None)
def test_more_latency_is_never_faster(latency: float, factor: float, channel: str) -> None:
    it = scenario(5, 6, channel=channel)
    walls = [
        predict_times(
            it.plan, it.work, it.payloads, it.settings, channel, timing(**latencies(latency * by, 3 * latency * by))
        ).wall_s
        for by in (1, factor)
    ]
    assert walls[1] >= walls[0]


@pytest.mark.parametrize("quota", [100.0, 300.0, 1_500.0, 30_000.0])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_it_agrees_with_the_simulator_on_the_publishing_quota(quota: float, micro_batches: int) -> None:
    times = load_timing(publish_quota=quota)
    it = scenario(16, 24, seed=1, times=times, samples=600, micro_batches=micro_batches)
    model = predict_times(it.plan, it.work, it.payloads, it.settings, "queue", it.timing)
    found = simulate(it)
    assert found.error is None
    assert model.wall_s == pytest.approx(found.wall_s, rel=0.3)
    assert (model.paced_s > 0) is (quota < 1_500 or (quota < 30_000 and micro_batches > 1))


def test_memory_and_warm_environments_help() -> None:
    it = scenario(4, 5, times=load_timing(), samples=10_000)
    small, large = (
        predict_times(it.plan, it.work, it.payloads, it.settings, "queue", it.timing, memory_mb=mb)
        for mb in (512, 1769)
    )
    warm = predict_times(it.plan, it.work, it.payloads, it.settings, "queue", it.timing, warm=9)
    assert sum(small.compute_s) == pytest.approx(1769 / 512 * sum(large.compute_s), rel=0.05)
    assert warm.wall_s < large.wall_s < small.wall_s
    workers, coordinator = large.function_times(1769, 4)
    init_s = load_timing()["init.s"]
    assert (workers.invocations, workers.memory_mb, coordinator.seconds) == (4, 1769, large.wall_s + init_s)


@pytest.mark.parametrize(("warm", "cold_workers", "cold_coordinators"), [(0, 4, 1), (3, 1, 1), (4, 0, 0)])
def test_the_init_phase_of_each_cold_environment_is_billed(
    warm: int, cold_workers: int, cold_coordinators: int
) -> None:
    it = scenario(4, 5, times=timing(init__s=7.0))
    found = predict_times(it.plan, it.work, it.payloads, it.settings, "queue", it.timing, warm=warm)
    workers, coordinator = found.function_times(1769, 4)
    assert workers.seconds == pytest.approx(found.functions_s + cold_workers * 7.0)
    assert coordinator.seconds == pytest.approx(found.wall_s + cold_coordinators * 7.0)
    local = predict_times(it.plan, it.work, it.payloads, it.settings, "queue", it.timing, cores=2.0)
    assert local.function_times(1769, 4)[0].seconds == local.functions_s  # processes have no init phase


@pytest.mark.parametrize("limited", ["puts", "gets"])
def test_a_layer_takes_as_long_as_a_bucket_admits_its_requests(limited: str) -> None:
    it = scenario(6, 4, channel="object", times=timing(**{f"prefix__{limited}_per_s": 2.0}), micro_batches=3)

    def layers(buckets: int) -> tuple[float, ...]:
        return predict_times(it.plan, it.work, it.payloads, it.settings, "object", it.timing, buckets=buckets).layers_s

    # Each rank that sends writes one object for each micro-batch, which each of its targets reads.
    asked = [
        len({edge.source for edge in edges})
        if limited == "puts"
        else len({(edge.source, target) for edge in edges for target in edge.targets})
        for edges in it.plan.exchanges
    ]
    assert layers(1)[:3] == pytest.approx([3 * count / 2.0 for count in asked])
    assert layers(4)[:3] == pytest.approx([3 * count / 8.0 for count in asked])


def test_an_object_is_read_once_by_each_target_whatever_it_holds_for_it() -> None:
    row = np.arange(1, dtype=np.int32)
    edges = Edge(0, (1, 2), row), Edge(0, (1,), row), Edge(2, (1,), row)
    plan = ExchangePlan(3, (edges, (), edges[2:]))
    assert ExchangeTotals(plan, dense_payloads(plan, samples=1)).pairs.tolist() == [3, 0, 1]


def test_a_server_is_the_serial_engine_on_its_processors() -> None:
    it = scenario(4, 5, times=timing(boot__s=60.0, core__factor=0.5, cpu__load_bytes_per_s=1000.0))
    found = server_times(it.work, it.payloads, it.timing, "c5.2xlarge")
    assert found.compute_s == pytest.approx(float(it.work.connections.sum()) * 12 / 1e9 / 8 / 0.5)
    assert found.job_s == pytest.approx(60 + 4000 / 1000 / 8 + found.compute_s)
    assert found.always_on_s == found.compute_s
    with pytest.raises(SettingError, match="instance must be one of"):
        server_times(it.work, it.payloads, it.timing, "t2.nano")


def test_nonsense_is_refused() -> None:
    it = scenario(3, 3)
    with pytest.raises(SettingError, match="channel must be one of"):
        predict_times(it.plan, it.work, it.payloads, it.settings, "pigeon", it.timing)
    with pytest.raises(SettingError, match="the settings are for 2 workers"):
        predict_times(it.plan, it.work, it.payloads, replace(it.settings, workers=2), "queue", it.timing)
    with pytest.raises(SettingError, match="at least 1 sample"):
        dense_payloads(it.plan, samples=0)
