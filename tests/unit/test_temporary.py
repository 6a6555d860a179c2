"""Temporary folders: removed with their owner however it ends, and no other folder is removed."""

from __future__ import annotations

import fcntl
import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.errors import OutputError, SettingError
from fsd_inference.temporary import TemporaryFolder
from tests.support.cli import entries, fsd_in

PREPARED = """
import numpy as np, fsd_inference as fsd
session = fsd.Session(fsd.random_network([16] * 3, connections=4, seed=5), channel="local", workers=2)
session.prepare()
"""
WAITING = "print('ready', flush=True)\ninput()\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of temporary files for each test, and for the programs that it starts."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield tmp_path
    monkeypatch.setattr(tempfile, "tempdir", None)


Started = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Started]:
    """Start a program, and wait until it says that it is ready."""
    started: list[subprocess.Popen[str]] = []

    def call(program: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield call
    for process in started:
        process.kill()
        process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_session_left_goes_with_the_next_and_a_living_ones_stays(place: Path, start: Started) -> None:
    killed = start(PREPARED + WAITING)
    left = entries(place)
    assert {name.split("-")[2] for name in left} == {"session", "shards"}
    living = start(PREPARED + WAITING)
    kept = entries(place) - left
    assert len(kept) == 2
    kill(killed)
    assert entries(place) == left | kept
    with fsd.Session(fsd.random_network([16] * 3, connections=4), channel="local", workers=2) as session:
        session.prepare()
        assert not entries(place) & left
    assert entries(place) == kept
    _, errors = living.communicate("\n")
    assert (living.returncode, errors, entries(place)) == (0, "", set())


def test_a_run_that_was_killed_is_forgotten_whatever_its_folder_holds(place: Path, start: Started) -> None:
    kill(start("from fsd_inference.temporary import TemporaryFolder\nfolder = TemporaryFolder('run')\n" + WAITING))
    (left,) = place.iterdir()
    (left / "a" / "b").mkdir(parents=True)
    (left / "a" / "file").write_text("x")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "kept").write_text("x")
    (left / "a" / "link").symlink_to(place / "elsewhere")
    (left / "away").symlink_to(place / "elsewhere" / "kept")
    os.mkfifo(left / "pipe")
    with TemporaryFolder("next"):
        assert not left.exists()
    assert entries(place) == {"elsewhere"}
    assert entries(place / "elsewhere") == {"kept"}


def test_folders_of_similar_names_are_the_users(place: Path, start: Started) -> None:
    kill(start("from fsd_inference.temporary import TemporaryFolder\nfolder = TemporaryFolder('run')\n" + WAITING))
    (left,) = place.iterdir()
    shutil.copytree(left, place / "fsd-inference-copy")  # with its marker
    shutil.move(left, place / "renamed")
    (place / "fsd-inference-link").symlink_to(place / "renamed")
    (place / "fsd-inference-results").mkdir()
    (place / "fsd-inference-odd").mkdir()
    (place / "fsd-inference-odd" / ".owned").write_text("not a number")
    (place / "fsd-inference-pipe").mkdir()
    os.mkfifo(place / "fsd-inference-pipe" / ".owned")
    (place / "fsd-inference-notes").write_text("a file")
    before = entries(place)
    with TemporaryFolder("next"):
        pass
    assert entries(place) == before


def test_a_folder_of_another_user_stays(place: Path, start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(start("from fsd_inference.temporary import TemporaryFolder\nfolder = TemporaryFolder('run')\n" + WAITING))
    left = entries(place)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    with TemporaryFolder("next"):
        pass
    assert entries(place) == left


def test_a_session_that_nobody_refers_to_takes_its_folders_along(place: Path) -> None:
    session = fsd.Session(fsd.random_network([16] * 3, connections=4), channel="local", workers=2)
    assert session.infer(np.ones((2, 16), np.float32)).outputs is not None
    assert len(entries(place)) == 2
    del session
    gc.collect()
    assert entries(place) == set()


def test_a_session_that_is_not_closed_ends_with_its_program(place: Path) -> None:
    program = PREPARED + "session.infer(np.ones((2, 16), np.float32))\nprint(*__import__('os').listdir())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=place, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split()) == 2
    assert entries(place) == set()


def test_a_forked_process_leaves_its_parents_folders_alone(place: Path, start: Started) -> None:
    program = """
import gc, os, sys
child = os.fork()
if not child:
    session.close()
    del session
    gc.collect()
    sys.exit()  # not os._exit: what runs at the interpreter's end does so
os.waitpid(child, 0)
assert len(os.listdir(os.environ["TMPDIR"])) == 2
if not (lasting := os.fork()):
    os.read(0, 1)
    os._exit(0)
"""
    parent = start(PREPARED + program + "print('ready', flush=True)\nos.waitpid(lasting, 0)\n")
    kill_parent_alone(parent)
    assert len(entries(place)) == 2
    with TemporaryFolder("next"):  # the child still runs, and has not kept the locks
        assert len(entries(place)) == 1
    parent.communicate("\n")


def kill_parent_alone(process: subprocess.Popen[str]) -> None:
    """Kill a program whose child still holds its pipes."""
    process.kill()
    process.wait()


def test_closing_descriptors_that_are_not_its_own_costs_a_program_nothing_else(place: Path) -> None:
    (place / "precious").mkdir()
    (place / "precious" / "file").write_text("x")
    folder = TemporaryFolder("run")
    (held,) = (number for number in range(1024) if is_open_at(number, folder.path))
    other = os.open(place / "precious", os.O_RDONLY)
    os.dup2(other, held)
    os.close(other)
    folder.close()
    os.close(held)
    assert entries(place / "precious") == {"file"}


def is_open_at(number: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except OSError:  # it is not open
        return False


def test_a_file_system_without_locks_will_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with TemporaryFolder("run") as one, TemporaryFolder("run") as other:
        (one / "file").write_text("x")
        assert entries(place) == {one.name, other.name}
    assert entries(place) == set()


def test_what_takes_too_long_to_remove_is_left_to_the_next(
    place: Path, start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill(start("from fsd_inference.temporary import TemporaryFolder\nfolder = TemporaryFolder('run')\n" + WAITING))
    (left,) = place.iterdir()
    (left / "file").write_text("x")
    with monkeypatch.context() as patched:
        patched.setattr("fsd_inference.temporary._LEFTOVERS_S", -1.0)
        TemporaryFolder("next").close()
        assert entries(left) == {"file", ".owned"}
    TemporaryFolder("next").close()
    assert entries(place) == set()


@pytest.mark.parametrize("where", ["mkdtemp", "marker"])
def test_a_full_disk_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if where == "mkdtemp":
        monkeypatch.setattr(tempfile, "mkdtemp", full)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match=f"{place} .No space left on device.: set TMPDIR"):
        TemporaryFolder("run")
    assert entries(place) == set()


def test_a_directory_that_is_not_there_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fsd.random_network([8, 8], connections=2).save(place / "net")
    np.save(place / "x.npy", np.ones((1, 8), np.float32))
    monkeypatch.setenv("TMPDIR", str(place / "nowhere"))
    call = fsd_in(capsys)
    said = call("infer", place / "net", place / "x.npy", "-o", place / "out.npz", "--channel", "local")
    assert said.code == 2
    assert f"{place / 'nowhere'} (named by TMPDIR, but not a directory)" in said.error()
    assert entries(place) == {"net", "x.npy"}


@pytest.mark.parametrize("named", [True, False])
def test_a_directory_that_cannot_be_used_is_named(place: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    if named:
        monkeypatch.setattr(os, "access", lambda *_: False)
    else:
        monkeypatch.delenv("TMPDIR")
        monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(place / "nowhere")])
    with pytest.raises(SettingError, match=f"{place}.*set TMPDIR to"):
        TemporaryFolder("run")
