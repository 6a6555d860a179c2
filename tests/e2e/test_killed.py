"""A rank that is killed: a typed error that names it, and no process left behind."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import RunError, WorkerDiedError
from tests.support.processes import ranks_of, runs
from tests.support.runs import session


@pytest.mark.parametrize("victim", [0, 5])
def test_a_killed_rank_is_named_and_the_others_end(victim: int) -> None:
    network = fsd.graph_challenge(1024, 120)
    x = sparse.csr_array((np.random.default_rng(0).random((20000, 1024)) < 0.5).astype(np.float32))
    pids: dict[int, int] = {}
    killed_at: list[float] = []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not killed_at:
            pids.update(ranks_of(os.getpid()))
            if len(pids) == 6:
                os.kill(pids[victim], signal.SIGKILL)
                killed_at.append(time.monotonic())
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    with session(network, "memory", workers=6, partition="block", branching=2, attempts=1) as distributed:
        distributed.prepare()
        killer.start()
        with pytest.raises(RunError) as caught:
            distributed.infer(x)
        ended_at = time.monotonic()
    killer.join()
    assert isinstance(caught.value, WorkerDiedError)
    assert caught.value.rank == victim
    assert caught.value.retryable
    assert ended_at - killed_at[0] < 30  # far from the clocks: the death was seen, not waited for
    until = time.monotonic() + 30
    while any(map(runs, pids.values())):
        assert time.monotonic() < until, "a rank outlived its run"
        time.sleep(0.05)
