"""Timing fitted on runs: what simulated runs were made with is found again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsd_inference.cost.fitting import fit_host, fit_services
from fsd_inference.cost.simulator import simulate
from fsd_inference.cost.timing import Sourced, load_timing
from fsd_inference.errors import FileFormatError, SettingError
from tests.support.scenarios import latencies, scenario, timing

_REQUESTS = ("put", "get", "publish", "receive", "message")


def test_latencies_are_found_again() -> None:
    times = timing(**latencies(0.05, 0.15), client__after_s=0.7, lane__s=0.3)
    reports = [
        simulate(scenario(5, 30, seed=seed, channel=channel, times=times, delay_s=0.06)).report()
        for seed in range(2)
        for channel in ("queue", "object")
    ]
    found = {name: sourced.value for name, sourced in fit_services(reports, delay_s=0.06).items()}
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
    base = load_timing("emulator")
    truth = base.with_values(
        "a slow host",
        {
            name: Sourced(base[name] * factor, "a test")
            for factor, names in (
                (2.0, ("cpu.begin_s", "cpu.open_s")),
                (3.0, ("cpu.step_s", *(f"{who}.{name}_s" for who in ("cpu", "server") for name in _REQUESTS))),
            )
            for name in names
        },
    )
    of_host = {"memory_mb": None}
    observed = [
        (replace(it, timing=base), simulate(it).report())
        for it in (
            scenario(workers, 30, channel=channel, times=truth, **of_host)  # type: ignore[arg-type]
            for workers, channel in ((4, "queue"), (6, "object"), (6, "queue"))
        )
    ]
    fitted = base.with_values("fitted", fit_host(observed))
    assert fitted["cpu.begin_s"] == pytest.approx(truth["cpu.begin_s"], rel=0.15)
    assert fitted["server.put_s"] == pytest.approx(truth["server.put_s"], rel=0.5)
    assert fitted["server.publish_s"] == pytest.approx(truth["server.publish_s"], rel=0.5)
    other = scenario(6, 20, seed=5, channel="queue", **of_host)  # type: ignore[arg-type]
    walls = [simulate(replace(other, timing=times)).wall_s for times in (truth, fitted, base)]
    assert walls[1] == pytest.approx(walls[0], rel=0.1)
    assert walls[2] < 0.8 * walls[0]


def test_what_cannot_be_fitted_is_said() -> None:
    report = simulate(scenario(3, 3)).report()
    with pytest.raises(SettingError, match="runs of at least 2 workers over queue or object"):
        fit_services([replace(report, channel="memory")])
    with pytest.raises(SettingError, match="give some"):
        fit_host([])
    with pytest.raises(FileFormatError, match="no rank says what it did when"):
        fit_services([replace(report, ranks=[])])
    for silent in (replace(report.ranks[2], started=None), replace(report.ranks[2], ended=None)):
        ranks = [*report.ranks[:2], silent]
        with pytest.raises(FileFormatError, match="rank 2 of the report does not say when it started and ended"):
            fit_services([replace(report, ranks=ranks)])
