"""The init phase of functions: how long a process has lived, and what reports say of it and charge for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.aws.handlers import environment, init_phase
from fsd_inference.aws.handlers.init_phase import process_age_s
from fsd_inference.cost.metered import function_times
from fsd_inference.rank_report import RankReport
from fsd_inference.report.figures import run_figures
from fsd_inference.report.pricing import price
from fsd_inference.report.run_page import run_page
from fsd_inference.run_report import RunReport
from fsd_inference.usage import Usage


def test_the_age_of_a_process_is_counted_from_its_start() -> None:
    program = (
        "import time; began = time.clock_gettime(time.CLOCK_BOOTTIME); from fsd_inference.aws.handlers.init_phase "
        "import process_age_s; age = process_age_s(); print(age, time.clock_gettime(time.CLOCK_BOOTTIME) - began)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    age, at_least = map(float, done.stdout.split())
    assert at_least - 0.02 <= age < 600


@pytest.mark.parametrize("text", [None, "", "7 (a) b", "7 (python) S x"])
def test_where_the_kernel_does_not_tell_there_is_none(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init_phase, "_STAT", tmp_path / "stat")
    if text is not None:
        (tmp_path / "stat").write_text(text)
    assert process_age_s() == 0.0


def test_a_name_with_spaces_and_brackets_is_no_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init_phase, "_STAT", tmp_path / "stat")
    monkeypatch.setattr("time.clock_gettime", lambda _: 100.0)
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    (tmp_path / "stat").write_text("7 (a) S (b c) " + " ".join(["S", *["1"] * 18, "9950", "2"]))
    assert process_age_s() == pytest.approx(0.5)


def test_only_the_first_invocation_has_an_init_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    warm = environment.Environment()
    assert warm.take_init_s() == 0.0  # not a function
    monkeypatch.setattr(environment, "process_age_s", lambda: 0.75)
    warm.end_init()
    assert [warm.take_init_s() for _ in range(3)] == [0.75, 0.0, 0.0]
    warm.clients.close()


def report(**more: Any) -> RunReport:
    ranks = [RankReport(rank, started=10.0, ended=12.0) for rank in range(3)]
    return RunReport(
        "object", 3, 10, 4, 100, 3.0, 0.1, 0.1, 1.0, 1 << 20, 5, Usage(), 1, "avx2", ranks, 1769, coordinators=[(9, 13)]
    , **more)  # fmt: skip


def test_cold_functions_are_billed_for_their_init_phase_and_shown() -> None:
    warm = report()
    ranks = [replace(warm.ranks[0], init_s=0.4), replace(warm.ranks[1], init_s=0.3), warm.ranks[2]]
    cold = replace(warm, ranks=ranks, coordinator_init_s=0.25)
    for found, (workers_s, coordinator_s) in ((warm, (6.0, 4.0)), (cold, (6.7, 4.25))):
        workers, coordinators = function_times(found)
        assert workers.seconds == pytest.approx(workers_s)
        assert coordinators.seconds == pytest.approx(coordinator_s)
        assert (workers.invocations, coordinators.invocations) == (3, 1)
    costs = [price(found).metered for found in (warm, cold)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1].usd > costs[0].usd
    assert "2 cold, init up to 0.400 s" in run_page(run_figures(cold), price(cold))
    assert " cold, init" not in run_page(run_figures(warm), price(warm))


def test_a_report_keeps_the_init_phases() -> None:
    cold = replace(report(coordinator_init_s=0.25), ranks=[RankReport(0, started=1.0, ended=2.0, init_s=0.4)])
    assert RunReport.from_json(cold.to_json()) == cold
    older = cold.to_json()
    del older["coordinator_init_s"]
    assert RunReport.from_json(older) == replace(cold, coordinator_init_s=0.0)
