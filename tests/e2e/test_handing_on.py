"""A run that takes longer than its functions and its coordinator may: it is handed on until it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

import fsd_inference as fsd
from fsd_inference.cost.metered import function_times
from tests.support.functions import functions_stack
from tests.support.runs import same, serial, session

pytestmark = [pytest.mark.emulator, pytest.mark.functions, pytest.mark.timeout(400)]

WORKERS = 2
KEPT_S = 20
"""Seconds of its time limit that a coordinator keeps for the end; its ranks have what is left."""


@pytest.mark.parametrize(
    ("channel", "ranks_s", "samples"),
    [
        ("object", 4, 30_000),
        pytest.param("queue", 4, 30_000, marks=pytest.mark.long),
        pytest.param("object", 20, 220_000, marks=pytest.mark.long),
    ],
)
def test_a_run_outlives_its_functions_and_its_coordinator(
    channel: str, ranks_s: int, samples: int, tmp_path: Path
) -> None:
    network = fsd.graph_challenge(1024, 120)
    x = fsd.digits(neurons=1024, samples=samples)
    network.save(tmp_path / "net")
    stack = tmp_path / "stack.json"
    with functions_stack(tmp_path, ranks=WORKERS, memory_mb=(512,), timeout_s=KEPT_S + ranks_s):
        fsd.push(tmp_path / "net", stack=stack, workers=WORKERS)
        with session(
            tmp_path / "net", channel, stack, workers=WORKERS, memory_mb=512, attempts=3, checkpoint_every=4
        ) as on_functions:
            answer = on_functions.infer(x, outputs="csr")
    assert same(answer.outputs, serial(network, x))
    report = answer.report
    print(f"{channel}, {report.attempts} attempts of {ranks_s} s: {report.wall_s:.1f} s, last from {report.resumed_at}")
    # No function was stopped, and each attempt had a coordinator of its own.
    assert report.attempts >= 2
    assert report.resumed_at > 0
    workers, coordinators = function_times(report)
    assert workers.invocations == WORKERS * report.attempts
    assert coordinators.invocations == report.attempts
    assert report.usage.requests["lambda.invoke"] == (WORKERS + 1) * report.attempts  # as predicted for as many
    assert all(rank.lived_s is not None and rank.lived_s < ranks_s + KEPT_S for rank in report.ranks)
