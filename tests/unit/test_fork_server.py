"""The fork server: processes as clean as new interpreters, their ends, and when the server itself starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsd_inference import Session, random_network
from fsd_inference.chaos.processes import ranks_of, runs
from fsd_inference.launch.requests import Child, Requests
from fsd_inference.launch.server import AWS_MODULES, Server
from fsd_inference.session.platforms import ProcessPlatform
from tests.support.processes import wait_until
from tests.support.runs import same, serial

NETWORK = random_network([24, 16, 8], connections=4, seed=3)
X = (np.random.default_rng(4).random((5, 24)) < 0.4).astype(np.float32)

STARTS_A_THREAD = """
import sys, threading, time
if "fsd_inference.launch.fork_server" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
"""


def servers() -> list[int]:
    """Return the processes of the fork servers that this process has started."""
    found = []
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"fsd_inference.launch.fork_server" in command and runs(int(child)):
            found.append(int(child))
    return found


@pytest.fixture(autouse=True)
def no_server_is_left() -> Iterator[None]:
    assert servers() == []
    yield
    assert servers() == []


@pytest.fixture
def requests() -> Iterator[Requests]:
    server = Server()
    yield server.requests()
    server.close()


def start(requests: Requests, folder: Path, rank: int = 0, starter: int | None = None) -> Child:
    return requests.start(str(folder), rank, starter, has_output=True)


def no_line(line: str) -> None:
    raise AssertionError(line)


def waiting(folder: Path) -> Path:
    """Return a run directory whose ranks wait, until they are killed, for their configuration."""
    os.mkfifo(folder / "launch.json")
    return folder


def test_a_process_reports_how_it_ended(requests: Requests, tmp_path: Path) -> None:
    child = start(requests, tmp_path, 12)
    assert child.wait(no_line) == 1
    child.close()
    said = (tmp_path / "rank-00012.log").read_text()
    assert said.startswith(f"{tmp_path / 'launch.json'} is not a valid configuration of a rank's process: ")
    assert said.count("\n") == 1


def test_a_process_is_killed_on_request(requests: Requests, tmp_path: Path) -> None:
    child = start(requests, waiting(tmp_path))
    child.kill()
    assert child.wait(no_line) == -signal.SIGKILL
    child.kill()  # nothing happens
    child.close()


def test_a_process_that_cannot_start_says_why(requests: Requests, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        start(requests, tmp_path / "nowhere")


def test_the_end_of_rank_0_ends_its_run_alone(requests: Requests, tmp_path: Path) -> None:
    """The children of a rank are started by requests in its name; those of another run go on."""
    waiting(tmp_path)
    first, other = start(requests, tmp_path, 0), start(requests, tmp_path, 7)
    wait_until(lambda: set(ranks_of(os.getpid())) == {0, 7}, "both run")
    pids = ranks_of(os.getpid())
    other.kill()
    assert other.wait(no_line) == -signal.SIGKILL
    assert runs(pids[0])
    os.kill(pids[0], signal.SIGSTOP)
    first.kill()
    assert first.wait(no_line) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        start(requests, tmp_path, 1, starter=0)  # in the name of a process that is not the server's
    first.close()
    other.close()


@pytest.mark.parametrize("modules", [(), AWS_MODULES])
def test_the_server_has_one_thread_when_it_forks(modules: tuple[str, ...], tmp_path: Path) -> None:
    """A fork has only the thread that forks: locks that others held would stay locked."""
    server = Server(modules)
    child = start(server.requests(), waiting(tmp_path))
    (process,) = servers()
    assert len(list(Path(f"/proc/{process}/task").iterdir())) == 1
    wait_until(lambda: 0 in ranks_of(os.getpid()), "the rank runs")
    command = Path(f"/proc/{ranks_of(os.getpid())[0]}/cmdline").read_bytes()
    assert b"fsd_inference.launch.fork_server" in command  # a fork, not a new interpreter
    server.close()
    assert child.wait(no_line) is None
    child.close()


def test_a_rank_inherits_nothing_of_others(requests: Requests, tmp_path: Path) -> None:
    waiting(tmp_path)
    children = [start(requests, tmp_path, rank) for rank in range(3)]
    wait_until(lambda: len(ranks_of(os.getpid())) == 3, "all run")
    files = {}
    for rank, process in ranks_of(os.getpid()).items():
        files[rank] = [str(path.readlink()) for path in Path(f"/proc/{process}/fd").iterdir()]
    assert len({len(each) for each in files.values()}) == 1
    shared = set(files[0]) & set(files[1]) & set(files[2])
    assert len(shared) == 1  # the socket for requests
    for child in children:
        child.kill()
        child.wait(no_line)
        child.close()


def test_runs_of_a_session_share_a_server() -> None:
    with Session(NETWORK, channel="local", workers=3) as session:
        first = session.infer(X)
        (process,) = servers()
        second = session.infer(X)
        assert servers() == [process]
        assert not ranks_of(os.getpid())
    assert not runs(process)
    for answer in (first, second):
        assert answer.outputs is not None
        assert same(answer.outputs, serial(NETWORK, X))


def test_a_changed_environment_is_that_of_the_next_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with Session(NETWORK, channel="local", workers=2) as session:
        session.infer(X)
        before = servers()
        monkeypatch.setenv("FSD_KERNEL", "portable")
        assert {rank.simd for rank in session.infer(X).report.ranks} == {"portable"}
        (process,) = servers()
        assert [process] != before
        monkeypatch.chdir(tmp_path)
        session.infer(X)
        assert servers() != [process]


def test_another_server_follows_one_that_was_killed() -> None:
    with Session(NETWORK, channel="local", workers=2) as session:
        session.infer(X)
        (process,) = servers()
        os.kill(process, signal.SIGKILL)
        answer = session.infer(X)
        assert answer.outputs is not None
        assert same(answer.outputs, serial(NETWORK, X))


def test_a_server_that_cannot_import_says_why(tmp_path: Path) -> None:
    server = Server(("no_such_module",))
    message = "the process that starts ranks is gone: ModuleNotFoundError: No module named 'no_such_module'"
    with pytest.raises(OSError, match=message):
        start(server.requests(), tmp_path)
    server.close()


@pytest.mark.parametrize("why", ["asked for", "a thread"])
def test_new_interpreters_where_a_fork_is_not_safe(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why == "asked for":
        monkeypatch.setenv("FSD_FORK", "0")
    else:
        (tmp_path / "sitecustomize.py").write_text(STARTS_A_THREAD)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Session(NETWORK, channel="local", workers=3) as session:
        answer = session.infer(X)
    assert answer.outputs is not None
    assert same(answer.outputs, serial(NETWORK, X))
    server = Server()
    (tmp_path / "run").mkdir()
    child = start(server.requests(), waiting(tmp_path / "run"))
    wait_until(lambda: 0 in ranks_of(os.getpid()), "the rank runs")
    command = Path(f"/proc/{ranks_of(os.getpid())[0]}/cmdline").read_bytes()
    assert b"fsd_inference.launch.worker" in command
    child.kill()
    assert child.wait(no_line) == -signal.SIGKILL
    child.close()
    server.close()


FORGETS = """
import os, sys, numpy as np, fsd_inference as fsd
session = fsd.Session(fsd.random_network([16] * 3, connections=4), channel="local", workers=2)
session.infer(np.ones((2, 16), np.float32))
(server,) = open(f"/proc/self/task/{os.getpid()}/children").read().split()
print(server, flush=True)
if not os.fork():
    session.close()
    os._exit(0)
os.wait()
os.kill(int(server), 0)  # it is there still
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["killed", "not closed"])
def test_the_server_ends_with_its_session(how: str, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", FORGETS, how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGKILL if how == "killed" else 0, "")
    wait_until(lambda: not runs(int(done.stdout)), "the server has ended")


def test_a_run_whose_server_is_killed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessPlatform, "delay_s", 0.5)
    with Session(NETWORK, channel="local", workers=2) as session:
        session.prepare()

        def kill() -> None:
            wait_until(lambda: len(ranks_of(os.getpid())) == 2, "all ranks run")
            os.kill(servers()[0], signal.SIGKILL)

        watcher = threading.Thread(target=kill)
        watcher.start()
        answer = session.infer(X)
        watcher.join()
    assert answer.report.attempts == 2
    assert answer.outputs is not None
    assert same(answer.outputs, serial(NETWORK, X))
