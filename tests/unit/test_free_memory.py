"""What this machine has left, and the refusal of runs that take more."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.engine import free_memory
from fsd_inference.errors import ResourceLimitError
from fsd_inference.network import random_network
from fsd_inference.session import fitting
from tests.support.cli import fsd_in

NETWORK = random_network([400] * 4, 40, seed=4)
X = np.random.default_rng(1).random((10, 400), np.float32)
MB = 2**20


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which the system's files are looked for."""
    for name in ("_MEMINFO", "_STATM", "_OWN_CGROUPS", "_CGROUPS"):
        monkeypatch.setattr(free_memory, name, tmp_path / name)
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_machine_that_does_not_say_has_any_memory(machine: Path) -> None:
    assert free_memory.machine_bytes() == math.inf


def test_what_is_available_is_what_the_kernel_says(machine: Path) -> None:
    write(machine / "_MEMINFO", "MemTotal:  9000 kB\nMemAvailable:    3000 kB\nSwapFree:   100 kB\n")
    assert free_memory.machine_bytes() == 3000 * 1024


def test_ranks_share_the_memory_of_the_machine(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(machine / "_MEMINFO", "MemAvailable:    6000 kB\n")
    assert free_memory.rank_limit(3) == 2000 * 1024
    monkeypatch.setattr(free_memory, "process_limit", lambda: 500.0)
    assert free_memory.rank_limit(3) == 500


@pytest.mark.parametrize("outer", [50_000, 1_000_000])
def test_the_least_of_the_control_groups_holds(machine: Path, outer: int) -> None:
    write(machine / "_MEMINFO", "MemAvailable: 9000000 kB\n")
    write(machine / "_OWN_CGROUPS", "4:cpu:/elsewhere\n0::/outer/inner\n")
    group = machine / "_CGROUPS" / "outer"
    for folder, most, now in ((group, outer, 20_000), (group / "inner", "max", 10_000)):
        write(folder / "memory.max", f"{most}\n")
        write(folder / "memory.current", f"{now}\n")
        write(folder / "memory.stat", "anon 5\ninactive_file 4000\n")
    assert free_memory.machine_bytes() == outer - 20_000 + 4000
    write(group / "inner" / "memory.max", "60000\n")
    assert free_memory.machine_bytes() == min(outer - 16_000, 54_000)


def test_control_groups_of_the_first_version(machine: Path) -> None:
    write(machine / "_OWN_CGROUPS", "3:cpu,memory:/mine\n2:cpu:/other\n")
    for name, value in (("limit_in_bytes", "70000"), ("usage_in_bytes", "9000"), ("stat", "total_inactive_file 500")):
        write(machine / "_CGROUPS" / "memory" / "mine" / f"memory.{name}", f"{value}\n")
    assert free_memory.machine_bytes() == 70_000 - 9000 + 500


def test_a_network_that_does_not_fit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    NETWORK.save(tmp_path / "net")
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array(X))
    size = (3 + 2) * (400 * 40 * 6 + 400 * 12)
    monkeypatch.setattr(fitting, "process_bytes", lambda: size - 1)
    command = fsd_in(capsys)
    arguments = ["infer", str(tmp_path / "net"), str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]
    said = command(*arguments)
    assert said.code == 1
    assert said.stderr.strip().endswith(
        "the network takes 0 MB of memory, and 0 MB are left; give a memory limit, so that layers are read as they are "
        "used, or run it on the functions of a stack"
    )
    assert said.stderr.count("\n") == 1
    assert not (tmp_path / "y.npz").exists()
    assert command(*arguments, "--memory-limit", "200").code == 0
    monkeypatch.setattr(fitting, "process_bytes", lambda: size)
    assert command(*arguments).code == 0


def test_ranks_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with fsd.Session(NETWORK, channel="local", workers=2) as session:
        monkeypatch.setattr(fitting, "machine_bytes", lambda: 0.2 * MB)
        with pytest.raises(ResourceLimitError, match=r"^2 workers take at least 0 MB of memory, and 0 MB are left"):
            session.prepare()
        monkeypatch.setattr(fitting, "machine_bytes", lambda: 1.0 * MB)
        monkeypatch.setattr(fitting, "process_limit", lambda: 40e6)
        with pytest.raises(ResourceLimitError, match=r"^the largest worker takes at least 40 MB"):
            session.prepare()
        monkeypatch.setattr(fitting, "process_limit", lambda: 50e6)
        outputs = session.infer(X).outputs
        assert outputs is not None
        assert outputs.shape == (10, 400)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_a_limit_of_the_address_space_counts(tmp_path: Path) -> None:
    random_network([2048] * 6, 1024, seed=1).save(tmp_path / "net")  # 60 MB
    sparse.save_npz(tmp_path / "x.npz", sparse.csr_array((1, 2048), dtype=np.float32))
    command = ["infer", str(tmp_path / "net"), str(tmp_path / "x.npz"), "-o", str(tmp_path / "y.npz")]

    def outcome(most: int) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.bounded_memory", str(most)],
            input=json.dumps([command]), capture_output=True, text=True, check=True,
        )  # fmt: skip
        ((code, said),) = json.loads(done.stdout)
        return code, said

    code, said = outcome(80_000_000)
    assert code == 1
    assert re.fullmatch(
        r"error: the network takes 84 MB of memory, and \d+ MB are left; give a memory limit, .*\n", said
    )
    assert outcome(400_000_000) == (0, "")
