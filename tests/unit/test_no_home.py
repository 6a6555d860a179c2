"""Users without a home directory, a name, or a writable home: only caching is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsd_inference.forecast.plan_cache import PlanCache, default_folder
from fsd_inference.forecast.work import whole_plan, whole_work
from fsd_inference.network import Network, random_network
from fsd_inference.report import fonts
from tests.support.cli import entries, fsd_in

NOBODY = 54321
"""A user id that no system gives."""


@pytest.fixture
def network() -> Network:
    return random_network([24] * 5, 5, seed=4)


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", fail)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_caches_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fsd-inference" / "plans"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for no_folder in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", no_folder)
        assert default_folder() == tmp_path / "home" / ".cache" / "fsd-inference" / "plans"


def test_who_has_no_home_is_advised_and_keeps_nothing(
    no_home: None, network: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network.save("net")
    said = fsd_in(capsys)("advise", "net", "--batch", 40)
    assert (said.code, said.stderr) == (0, "")
    assert entries(tmp_path) == {"net"}


def test_a_folder_that_cannot_be_written_keeps_nothing(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    kept = PlanCache(tmp_path, network.digest, "graph")
    for function in ("tempfile.mkstemp", "pathlib.Path.mkdir"):
        with monkeypatch.context() as patched:
            patched.setattr(function, refuse)
            kept.put(1, whole_plan(network), whole_work(network))
    assert (kept.get(1), entries(tmp_path)) == (None, set())
    (tmp_path / "file").write_text("")
    PlanCache(tmp_path / "file", network.digest, "graph").put(1, whole_plan(network), whole_work(network))


@pytest.mark.parametrize("damage", ["emptied", "cut short", "changed"])
def test_a_damaged_plan_is_not_there(network: Network, tmp_path: Path, damage: str) -> None:
    kept = PlanCache(tmp_path, network.digest, "graph")
    kept.put(1, whole_plan(network), whole_work(network))
    assert kept.get(1) is not None
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    harmed = {"emptied": b"", "cut short": content[:-30], "changed": content[:60] + b"\xff" * 9 + content[69:]}
    path.write_bytes(harmed[damage])
    assert kept.get(1) is None


def test_fonts_are_listed_in_a_folder_that_goes(no_home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "from fsd_inference.report.fonts import load_fonts; load_fonts(); import os; print(os.environ)"
    environment = {**os.environ, "HOME": "/dev/null"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "XDG_CACHE_HOME" not in done.stdout
    assert "MPLCONFIGDIR" not in done.stdout
    assert entries(tmp_path) == set()
    assert not fonts._is_usable("XDG_CACHE_HOME")


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that other users can enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize("home", ["none", "of another", "not there"])
def test_a_user_without_a_name(home: str, network: Network, open_place: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root with setpriv can run programs as a user without a name")
    network.save(open_place / "net")
    np.save(open_place / "x.npy", np.ones((40, 24), np.float32))
    (open_place / "of another" / ".cache" / "fsd-inference" / "plans").mkdir(parents=True)
    (open_place / "work").mkdir()
    shutil.chown(open_place / "work", NOBODY, NOBODY)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(filter(None, sys.path))}
    if home != "none":
        environment["HOME"] = str(open_place / home)
    # It may read what the tests may: they, and Python, may lie below another user's home.
    able = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *able]

    def fsd(*arguments: str) -> None:
        command = [*user, sys.executable, "-m", "fsd_inference", *arguments]
        done = subprocess.run(
            command, cwd=open_place / "work", env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    fsd("advise", "../net", "--batch", "40", "-o", "options.png")
    infer = "infer ../net ../x.npy -o out.npz --channel local --workers 2 --report run --plots"
    fsd(*infer.split())
    assert {"timeline.png", "report.html"} <= entries(open_place / "work" / "run")
    assert (open_place / "work" / "options.png").stat().st_uid == NOBODY
