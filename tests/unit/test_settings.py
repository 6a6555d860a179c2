"""Settings of a session: invalid ones are one-line errors, valid ones reach the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.stack import save_stack
from fsd_inference.config import RunSettings
from fsd_inference.errors import SettingError
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction

NETWORK = fsd.random_network([16] * 4, connections=4, seed=3)
X = np.random.default_rng(1).random((9, 16), np.float32)

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: fsd.Tuning(branching=0), "branching must be a whole number of at least 1, not 0"),
    (lambda: fsd.Tuning(micro_batches=-1), "micro_batches must be a whole number of at least 1, not -1"),
    (lambda: fsd.Tuning(micro_batches=65_536), "micro_batches must be at most 65,535, not 65,536"),
    (lambda: fsd.Tuning(threads=1.5), "threads must be a whole number of at least 1, not 1.5"),  # type: ignore[arg-type]
    (lambda: fsd.FunctionSettings(memory_mb=0), "memory_mb must be a whole number of at least 1, not 0"),
    (lambda: fsd.FailurePolicy(attempts=0), "attempts must be a whole number of at least 1, not 0"),
    (lambda: fsd.Clocks(run_s=0.0), "clock run_s must be a positive number of seconds, not 0.0"),
    (lambda: RunSettings(branching=0), "branching must be a whole number of at least 1, not 0"),
    (lambda: RunSettings(workers=0), "workers must be a whole number of at least 1, not 0"),
    (lambda: fsd.Session(NETWORK, output="all"), "output must be one of rows, argmax, any, not 'all'"),
    (lambda: fsd.Session(NETWORK, partition="best"), "partition must be one of block, .*, not 'best'"),
]


@pytest.mark.parametrize(("make", "said"), WRONG, ids=[said for _, said in WRONG])
def test_a_wrong_setting_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        make()


@pytest.mark.parametrize("functions", [fsd.FunctionSettings(memory_mb=1769), fsd.FunctionSettings(synchronous=True)])
def test_settings_of_functions_need_functions(functions: fsd.FunctionSettings) -> None:
    with pytest.raises(SettingError, match="apply only to stacks with functions"):
        fsd.Session(NETWORK, channel="local", workers=2, functions=functions)


def test_functions_have_the_threads_of_their_memory(tmp_path: Path) -> None:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:s-"
    functions = FunctionsSpec(f"{arn}run", (WorkerFunction(1769, f"{arn}worker"),), "http://127.0.0.1:9/q", 60.0)
    stack = StackSpec("s", "http://127.0.0.1:9", "us-east-1", (), ("runs",), "networks", functions=functions)
    save_stack(stack, tmp_path / "stack.json")
    with pytest.raises(SettingError, match="stack s has functions, whose threads follow from their memory"):
        fsd.Session(NETWORK, stack=tmp_path / "stack.json", tuning=fsd.Tuning(threads=2))


def test_tuning_reaches_the_ranks() -> None:
    tuning = fsd.Tuning(micro_batches=3, branching=1, overlap=False)
    with fsd.Session(NETWORK, channel="local", workers=3, partition="block", tuning=tuning) as session:
        ranks = session.infer(X).report.ranks
    assert [rank.starter for rank in ranks] == [None, 0, 1]
    assert {micro_batch for _, layer, micro_batch, *_ in ranks[0].events if layer >= 0} == {0, 1, 2}
