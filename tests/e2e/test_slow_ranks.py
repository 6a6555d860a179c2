"""A rank whose processor is taken away most of the time: it is named while the run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.chaos.processes import processes_of, ranks_of
from fsd_inference.progress import Silent
from tests.support.functions import functions_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial, session

WORKERS, VICTIM = 3, 1
NETWORK = fsd.random_network([2048] * 60, connections=64, seed=5)
X = np.random.default_rng(0).random((4000, 2048), np.float32)  # so that the slow rank needs half a minute


class Told(Silent):
    """Keeps what is waited for."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def waiting(self, what: str) -> None:
        self.waits.append(what)


class Slower:
    """Lets one of a run's processes run for a tenth of the time, from when all ranks run until one is named.

    Parameters
    ----------
    told : Told
    ranks : callable
        Returns the process ids of the ranks that run.
    """

    def __init__(self, told: Told, ranks: Callable[[], dict[int, int]]) -> None:
        self.at_work = 0  # ranks that still ran when it was named
        self.victim = 0
        self._told, self._ranks = told, ranks
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._slow_down)

    def __enter__(self) -> Slower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _slow_down(self) -> None:
        pids: dict[int, int] = {}

        def all_run() -> bool:
            pids.update(self._ranks())
            return len(pids) == WORKERS or self._over.is_set()

        wait_until(all_run, "all ranks run", 60)
        self.victim = pids.get(VICTIM, 0)
        with suppress(ProcessLookupError):  # it has ended, which the test will find
            while not self._told.waits and not self._over.is_set():
                os.kill(self.victim, signal.SIGSTOP)
                time.sleep(0.09)
                os.kill(self.victim, signal.SIGCONT)
                time.sleep(0.01)
        self.at_work = len(self._ranks())


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_rank_that_is_slowed_down_is_named_while_the_run_goes_on() -> None:
    told = Told()
    with session(NETWORK, "local", workers=WORKERS, partition="block", progress=told, attempts=1) as distributed:
        distributed.prepare()
        with Slower(told, lambda: ranks_of(os.getpid())) as slower:
            answer = distributed.infer(X)
    (line,) = told.waits
    assert line.startswith(f"rank {VICTIM} computes ")
    assert "times slower than the median of the other ranks since layer" in line
    assert slower.at_work == WORKERS
    assert same(answer.outputs, serial(NETWORK, X))
    assert [straggler.rank for straggler in answer.report.stragglers] == [VICTIM]


@pytest.mark.long
@pytest.mark.emulator
@pytest.mark.functions
@pytest.mark.timeout(300)
def test_a_function_that_is_slowed_down_is_named_while_the_run_goes_on(tmp_path: Path) -> None:
    told = Told()
    NETWORK.save(tmp_path / "net")
    with functions_stack(tmp_path, ranks=WORKERS) as stack:
        fsd.push(tmp_path / "net", stack=tmp_path / "stack.json", workers=WORKERS, partition="block")
        with session(
            tmp_path / "net", "object", tmp_path / "stack.json", workers=WORKERS, progress=told, attempts=1
        ) as on_functions:

            def ranks() -> dict[int, int]:
                return dict(enumerate(sorted(processes_of(f"{stack.name}-worker-512"))))

            with Slower(told, ranks) as slower:
                answer = on_functions.infer(X)
    (line,) = told.waits
    (rank,) = (report.rank for report in answer.report.ranks if report.process == slower.victim)
    assert line.startswith(f"rank {rank} computes ")
    assert same(answer.outputs, serial(NETWORK, X))
    assert [straggler.rank for straggler in answer.report.stragglers] == [rank]
