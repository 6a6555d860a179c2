"""A rank that is killed: a typed error that names it, and no process left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.errors import RunError, WorkerDiedError
from tests.support.runs import session


def ranks_of(session_pid: int) -> dict[int, int]:
    """Return the process of each rank that this process has started, directly or not."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if b"fsd_inference.launch.worker" in arguments and session_pid in ancestors(int(process.name)):
                found[int(arguments[4])] = int(process.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        yield pid


def runs(pid: int) -> bool:
    """Whether a process is there and has not ended; init may be slow to bury it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


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
