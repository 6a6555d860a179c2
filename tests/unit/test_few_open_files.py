"""Low limits on open files: the right outputs, or a one-line error that names the limit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.errors import as_run_error, reason
from fsd_inference.network import Network, random_network
from tests.support.cli import entries
from tests.support.runs import same, serial

X = np.random.default_rng(1).random((10, 24), np.float32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    random_network([24] * 5, 5, seed=4).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "temporary").mkdir()
    return tmp_path


def infer(place: Path, files: int, channel: str) -> subprocess.CompletedProcess[str]:
    program = f'ulimit -n {files}; exec "$0" -m fsd_inference infer net x.npy -o out.npz --channel {channel}'
    environment = os.environ | {"TMPDIR": str(place / "temporary")}
    return subprocess.run(
        ["bash", "-c", program, sys.executable], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def is_right(place: Path) -> bool:
    outputs = sparse.csr_array(sparse.load_npz(place / "out.npz"))
    return same(outputs, serial(Network.load(place / "net"), X))


def test_one_process_needs_few(place: Path) -> None:
    done = infer(place, 12, "serial")
    assert (done.returncode, done.stderr) == (0, "")
    assert is_right(place)


@pytest.mark.emulator
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_clients_of_aws_say_how_many_they_need(place: Path, channel: str) -> None:
    done = infer(place, 63, f"{channel} --workers 2")
    assert done.returncode == 1
    assert done.stderr == (
        "error: this process may open 63 files, and AWS clients need up to 64: raise the limit with ulimit -n 64\n"
    )
    assert entries(place / "temporary") == set()
    assert infer(place, 64, f"{channel} --workers 2").returncode == 0
    assert is_right(place)


@pytest.mark.parametrize(("files", "workers"), [(10, 2), (13, 2), (15, 4), (18, 4), (26, 8)])
def test_ranks_answer_or_say_why_not(place: Path, files: int, workers: int) -> None:
    done = infer(place, files, f"local --workers {workers} --branching 2")
    if done.returncode == 0:
        assert is_right(place)
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert "Too many open files" in done.stderr
        assert entries(place) == {"net", "x.npy", "temporary"}
    assert entries(place / "temporary") == set()


def test_the_limit_is_named() -> None:
    error = OSError(24, "Too many open files", "a/file")
    assert "ulimit -n" in reason(error)
    assert str(as_run_error(error, rank=1, operation="load")) == f"rank 1, load: a/file: {reason(error)}"
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
