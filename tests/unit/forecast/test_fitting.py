"""Fitting of timing to runs: the timing of simulated runs is recovered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.forecast.fitting import fit_services
from fsd_inference.forecast.timing import Sourced, load_timing
from fsd_inference.simulator import SimulatedRun, simulate
from tests.support.one_by_one import Host, simulate_one_by_one
from tests.support.one_by_one.fitting import fit_host, with_fitted
from tests.support.scenarios import latencies, scenario, timing

_REQUESTS = ("put", "get", "publish", "receive", "message")


def test_latencies_are_found_again() -> None:
    times = timing(**latencies(0.05, 0.15), client__after_s=0.7, lane__s=0.3)
    reports = [
        simulate_one_by_one(scenario(5, 30, seed=seed, channel=channel, times=times)).report()
        for seed in range(2)
        for channel in ("queue", "object")
    ]
    found = {name: sourced.value for name, sourced in fit_services(reports).items()}
    assert found["publish.median_s"] == pytest.approx(0.05, rel=0.3)
    assert found["put.median_s"] == pytest.approx(0.05, rel=0.3)
    assert found["publish.p99_s"] == pytest.approx(0.15, rel=0.5)
    # The last of several sources is the slowest of several deliveries.
    assert 0.04 < found["deliver.median_s"] < 0.15
    assert 0.04 < found["get.median_s"] < 0.15
    assert found["client.after_s"] == pytest.approx(0.7 + 5 * 0.05, abs=0.25)
    assert found["lane.s"] == pytest.approx(0.3, abs=0.1)
    load_timing().with_values("fitted", fit_services(reports))


def test_a_host_is_found_again() -> None:
    # Requests of queues must take long enough to show in wall times.
    costly = {"cpu.publish_s": 0.0027, "cpu.receive_s": 0.001, "cpu.message_s": 0.00017}
    base = load_timing("emulator").with_values("costly", {n: Sourced(value, "a test") for n, value in costly.items()})
    host = Host()
    slower = {
        name: factor
        for factor, names in (
            (2.0, ("cpu.begin_s", "cpu.open_s")),
            (3.0, ("cpu.step_s", *(f"{who}.{name}_s" for who in ("cpu", "server") for name in _REQUESTS))),
        )
        for name in names
    }
    known = {name: each.value for name, each in base.values.items()} | dict(host.values)
    truth = {name: Sourced(known[name] * factor, "a test") for name, factor in slower.items()}

    def runs_of(
        workers: int, channel: str, values: dict[str, Sourced], layers: int = 30, seed: int = 0
    ) -> SimulatedRun:
        it = scenario(workers, layers, channel=channel, times=base, seed=seed)
        return simulate_one_by_one(*with_fitted(it, host, values))

    observed = [
        (scenario(workers, 30, channel=channel, times=base), host, runs_of(workers, channel, truth).report())
        for workers, channel in ((4, "queue"), (6, "object"), (6, "queue"))
    ]
    fitted = fit_host(observed)
    assert fitted["cpu.begin_s"].value == pytest.approx(truth["cpu.begin_s"].value, rel=0.15)
    assert fitted["server.put_s"].value == pytest.approx(truth["server.put_s"].value, rel=0.5)
    assert fitted["server.publish_s"].value == pytest.approx(truth["server.publish_s"].value, rel=0.5)
    walls = [runs_of(6, "queue", values, 20, 5).wall_s for values in (truth, fitted, {})]
    assert walls[1] == pytest.approx(walls[0], rel=0.1)
    assert walls[2] < 0.8 * walls[0]


def test_what_cannot_be_fitted_is_said() -> None:
    report = simulate(scenario(3, 3)).report()
    with pytest.raises(SettingError, match="runs of at least 2 workers over queue or object"):
        fit_services([replace(report, channel="local")])
    with pytest.raises(SettingError, match="give at least one"):
        fit_host([])
    with pytest.raises(FileFormatError, match="the report must have the activities of its ranks"):
        fit_services([replace(report, ranks=[])])
    for silent in (replace(report.ranks[2], started=None), replace(report.ranks[2], ended=None)):
        ranks = [*report.ranks[:2], silent]
        with pytest.raises(FileFormatError, match="rank 2 of the report does not say when it started and ended"):
            fit_services([replace(report, ranks=ranks)])
