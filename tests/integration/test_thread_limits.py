"""Machines that refuse another thread or process: every run ends soon with an error that names the limit."""

from __future__ import annotations

import errno
import os
import re
import socket
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

from fsd_inference import Session, random_network
from fsd_inference.chaos.processes import ranks_of
from fsd_inference.errors import FsdError, ResourceLimitError, RunError
from fsd_inference.launch.processes import ProcessLauncher
from fsd_inference.launch.requests import REQUEST_BYTES, Requests
from fsd_inference.threads import ThreadPool
from tests.support.processes import wait_until

NETWORK = random_network([24, 16, 8], connections=4, seed=3)
BATCH = (np.random.default_rng(4).random((5, 24)) < 0.4).astype(np.float32)
LIMIT = "the limit on processes and threads is reached (ulimit -u, or the container's pids limit)"

# Python imports a module of this name, if there is one, when it starts.
REFUSING = """
import os, sys, threading
started, start = [0], threading.Thread.start
def refuse(thread):
    started[0] += 1
    if started[0] == int(os.environ["REFUSED"]) and "fsd_inference.launch.fork_server" in sys.orig_argv:
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = refuse
"""


def failure_of(session: Session) -> FsdError | None:
    try:
        session.infer(BATCH)
    except FsdError as error:
        return error
    return None


@pytest.mark.parametrize("refused", range(1, 9))
def test_a_rank_that_gets_no_thread(refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of a rank's threads in turn; the last ones are not reached."""
    (tmp_path / "sitecustomize.py").write_text(REFUSING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("REFUSED", str(refused))
    with Session(NETWORK, channel="local", workers=2) as session:
        failure = failure_of(session)
    if failure is None:
        assert refused > 4
    else:
        assert isinstance(failure, RunError)
        assert failure.rank is not None
        assert LIMIT in str(failure)
    wait_until(lambda: not ranks_of(os.getpid()), "the ranks are gone")


def test_a_caller_that_gets_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the caller's threads in turn, until a run needs no more of them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    start = threading.Thread.start
    for refused in range(1, 20):
        left = [refused]

        def refuse(thread: threading.Thread) -> None:
            left[0] -= 1  # noqa: B023 - called in this turn alone
            if left[0] == 0:  # noqa: B023
                raise RuntimeError("can't start new thread")
            start(thread)

        with monkeypatch.context() as patch, Session(NETWORK, channel="local", workers=2) as session:
            patch.setattr(threading.Thread, "start", refuse)
            failure = failure_of(session)
        assert failure is None or LIMIT in str(failure)
        wait_until(lambda: not ranks_of(os.getpid()), "the ranks are gone")
        assert not list(tmp_path.iterdir())
        if left[0] > 0:
            break
    assert 1 < refused < 19


def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:

        def refuse() -> None:
            _, (connection,), _, _ = socket.recv_fds(receiver, REQUEST_BYTES, 1)
            os.write(connection, f"failed {errno.EAGAIN}\n".encode())
            os.close(connection)

        server = threading.Thread(target=refuse)
        server.start()
        launcher = ProcessLauncher(tmp_path, None, Requests(sender))
        with pytest.raises(RunError, match=re.escape(f"rank 3 could not be started: {LIMIT}")):
            launcher.start(3, lambda *_: None)
        launcher.close(0.0)
        server.join()


def test_a_pool_that_gets_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with ThreadPool(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(ResourceLimitError, match=re.escape(LIMIT)):
                pool.submit(int)
        assert pool.submit(int, "3").result(10) == 3
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
