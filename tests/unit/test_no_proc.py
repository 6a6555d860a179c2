"""Machines without /proc: alternatives to what is read from it, or a one-line error."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.channels import local
from fsd_inference.engine import memory
from fsd_inference.errors import SettingError
from fsd_inference.forecast import calibration
from fsd_inference.network import Network, random_network
from fsd_inference.session import Session
from tests.support.cli import entries
from tests.support.runs import same, serial

NETWORK = random_network([24] * 5, 5, seed=4)
X = np.random.default_rng(1).random((10, 24), np.float32)


@pytest.fixture
def no_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((memory, "_STATUS"), (calibration, "_PROCESSORS"), (local, "_OPEN_FILES")):
        monkeypatch.setattr(module, name, tmp_path / "proc" / name)


def test_the_most_memory_is_what_the_kernel_counts_for_all_processes(no_proc: None) -> None:
    assert memory.peak_rss_bytes() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_machine_is_described_without_its_processors_name(no_proc: None) -> None:
    assert f"{os.cpu_count()} cores" in calibration.machine()
    assert calibration.machine().partition(",")[0]


def test_a_path_too_long_for_sockets_is_one_sentence(
    no_proc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    with (
        Session(NETWORK, channel="local", workers=2) as session,
        pytest.raises(SettingError, match=f"{long}.* is too long .*: set TMPDIR"),
    ):
        session.infer(X)
    assert entries(long) == set()


def hidden() -> list[str]:
    """Return what runs a program without /proc."""
    within = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*within, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("hiding /proc needs unshare, and root")
    return within


@pytest.mark.parametrize("channel", ["serial", "local --workers 3"])
def test_runs_need_none(channel: str, tmp_path: Path) -> None:
    NETWORK.save(tmp_path / "net")
    np.save(tmp_path / "x.npy", X)
    command = [*hidden(), sys.executable, "-m", "fsd_inference", "infer", "net", "x.npy", "-o", "out.npz"]
    done = subprocess.run(
        [*command, "--channel", *channel.split()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    outputs = sparse.csr_array(sparse.load_npz(tmp_path / "out.npz"))
    assert same(outputs, serial(Network.load(tmp_path / "net"), X))
