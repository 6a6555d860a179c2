"""A rank whose processor is taken away most of the time: it is named while the run goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.chaos.processes import ranks_of
from fsd_inference.progress import Silent
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


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_rank_that_is_slowed_down_is_named_while_the_run_goes_on() -> None:
    told, over, at_that_time = Told(), threading.Event(), list[int]()

    def slow_down() -> None:
        """Let the rank run for a tenth of the time until it is named."""
        pids: dict[int, int] = {}

        def all_run() -> bool:
            pids.update(ranks_of(os.getpid()))
            return len(pids) == WORKERS or over.is_set()

        wait_until(all_run, "all ranks run", 60)
        with suppress(ProcessLookupError):  # it has ended, which the test will find
            while not told.waits and not over.is_set():
                os.kill(pids[VICTIM], signal.SIGSTOP)
                time.sleep(0.09)
                os.kill(pids[VICTIM], signal.SIGCONT)
                time.sleep(0.01)
        at_that_time.append(len(ranks_of(os.getpid())))

    with session(NETWORK, "local", workers=WORKERS, partition="block", progress=told, attempts=1) as distributed:
        distributed.prepare()
        slower = threading.Thread(target=slow_down)
        slower.start()
        try:
            answer = distributed.infer(X)
        finally:
            over.set()
            slower.join()
    (line,) = told.waits
    assert line.startswith(f"rank {VICTIM} computes ")
    assert "times slower than the median of the other ranks since layer" in line
    assert at_that_time == [WORKERS]  # all were still at work
    assert same(answer.outputs, serial(NETWORK, X))
    assert [straggler.rank for straggler in answer.report.stragglers] == [VICTIM]
