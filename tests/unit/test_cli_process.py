"""`fsd` as a process: signals, closed standard streams, and ways to start it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.chaos.processes import ranks_of, runs
from fsd_inference.cli.console import Output
from fsd_inference.network import Network, random_network
from tests.support.cli import entries
from tests.support.processes import wait_until
from tests.support.runs import same, serial

WORKERS = 3
INFER = ("infer", "net", "x.npy", "-o", "out.npz", "--channel", "local", "--workers", str(WORKERS))
SLOW = """
import signal, sys
from fsd_inference.cli.main import main
from fsd_inference.session.platforms import ProcessPlatform
ProcessPlatform.delay_s = 5.0
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as for all that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""
"""`fsd` with a latency on every frame, so that a run over sockets takes long."""

STUCK = """
import signal, time
from fsd_inference.cli.ending import undo_when_ended
signal.signal(signal.SIGINT, signal.default_int_handler)
undo_when_ended()
try:
    print("begun", flush=True)
    time.sleep(600)
finally:
    print("undoing", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a network `net` and inputs `x.npy`."""
    random_network([24] * 5, 5, seed=4).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).random((10, 24), np.float32))
    (tmp_path / "temporary").mkdir()
    return tmp_path


Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(place: Path) -> Iterator[Started]:
    """Start a program in `place`, in a session of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(program: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        streams = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        before = more.pop("preexec_fn", lambda: None)

        def prepare() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
            before()

        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=place,
            env=os.environ | {"TMPDIR": str(place / "temporary")},
            text=True,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - no other thread of a test holds a lock then
            **(streams | more),
        )
        started.append(process)
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def once_all_run(process: subprocess.Popen[str]) -> list[int]:
    """Return the ranks' processes when all have started."""
    pids: dict[int, int] = {}

    def all_run() -> bool:
        assert process.poll() is None
        pids.update(ranks_of(process.pid))
        return len(pids) == WORKERS

    wait_until(all_run, "all ranks run", 60)
    return list(pids.values())


def nothing_is_left(place: Path, ranks: list[int]) -> None:
    wait_until(lambda: not any(map(runs, ranks)), "all ranks have ended", 10)
    assert entries(place) == {"net", "x.npy", "temporary"}
    assert entries(place / "temporary") == set()


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGHUP, 129, ""), (signal.SIGINT, 130, "error: interrupted\n"), (signal.SIGTERM, 143, "")],
)
def test_a_signal_undoes_what_was_begun(start: Started, place: Path, number: int, code: int, said: str) -> None:
    process = start(SLOW, *INFER)
    ranks = once_all_run(process)
    process.send_signal(number)
    assert process.communicate() == ("", said)
    assert process.returncode == code
    nothing_is_left(place, ranks)


def test_a_closed_terminal_undoes_what_was_begun(start: Started, place: Path) -> None:
    ours, theirs = pty.openpty()
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    process = start(SLOW, *INFER, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **streams)
    os.close(theirs)
    ranks = once_all_run(process)
    os.close(ours)
    assert process.wait() == 129
    nothing_is_left(place, ranks)


def test_a_signal_that_was_ignored_stays_so(start: Started) -> None:
    process = start(SLOW, *INFER, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    once_all_run(process)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(start: Started, first: int, second: int) -> None:
    process = start(STUCK)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(first)
    assert process.stdout.readline() == "undoing\n"
    process.send_signal(signal.SIGHUP)  # the shell's, or the kernel's, after that of the other
    process.send_signal(second)
    assert process.wait() == -second


def sh(place: Path, command: str, redirected: str) -> subprocess.CompletedProcess[str]:
    """Run `fsd` by a shell, which can close its streams."""
    return subprocess.run(
        ["sh", "-c", f'"$0" -m fsd_inference {command} {redirected}', sys.executable],
        capture_output=True,
        text=True,
        cwd=place,
        env=os.environ | {"TMPDIR": str(place / "temporary")},
        check=False,
    )


def expected(place: Path) -> sparse.csr_array:
    return serial(Network.load(place / "net"), np.load(place / "x.npy"))


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_ranks_answer_where_standard_streams_are_closed(place: Path, closed: str) -> None:
    done = sh(place, " ".join(INFER), closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("10 samples x 24 outputs" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))
    assert same(sparse.csr_array(sparse.load_npz(place / "out.npz")), expected(place))
    assert entries(place) == {"net", "x.npy", "out.npz", "temporary"}


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "code"),
    [("--version", 0), ("network info net --json", 0), ("network info nowhere", 2), ("nonsense", 2)],
)
def test_closed_streams_are_no_failure(place: Path, command: str, code: int, closed: str) -> None:
    done = sh(place, command, closed)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if "2>&-" not in closed:
        assert done.stderr.count("error: ") == (code != 0)


@pytest.mark.parametrize("command", ["--help", "network info net", " ".join(INFER)])
def test_nobody_who_reads_is_no_traceback(place: Path, command: str) -> None:
    assert sh(place, command, "| head -0").stderr == ""


def test_an_error_that_nobody_hears_is_still_a_code(place: Path) -> None:
    assert sh(place, "nonsense", "2>/dev/full").returncode == 2


def test_notes_that_nobody_hears_end_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    out = Output(as_json=False)
    out.note("half of it is done")
    with out.progress() as tasks:
        tasks.begin("the rest", None)


def test_programs_without_streams_have_sessions(place: Path) -> None:
    program = """
import os, numpy as np, fsd_inference as fsd
network, x = fsd.Network.load("net"), np.load("x.npy")
with fsd.Session(network, channel="local", workers=2) as session:
    written = session.infer(x, outputs="dense").outputs
    with open("written", "w") as file:
        assert file.fileno() > 2
    np.save("dense.npy", written)
"""
    shell = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    subprocess.run(shell, cwd=place, check=True, env=os.environ | {"TMPDIR": tempfile.gettempdir()})
    assert np.array_equal(np.load(place / "dense.npy"), expected(place).toarray())


def test_the_module_is_the_program(place: Path) -> None:
    done = sh(place, "network info --help", "")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: fsd network info ")
