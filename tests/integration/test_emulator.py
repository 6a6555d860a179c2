"""The emulator process that a session starts: its environment, and the errors if it does not start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fsd_inference.aws import emulator
from fsd_inference.aws.emulator import running_emulator, start_emulator, stop_emulator
from fsd_inference.chaos.processes import environment_of
from fsd_inference.errors import StackError

pytestmark = pytest.mark.emulator

MEANT_FOR_OTHERS = {
    "SERVICES": "ec2",
    "USE_SSL": "1",
    "AUTH": "true",
    "GATEWAY_PORT": "1",
    "EDGE_PORT": "2",
    "DEBUG": "1",
    "LAMBDA_EXECUTOR": "docker",
    "S3_PERSIST": "1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "AWS_PROFILE": "nobody",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "MINISTACK_REGION": "eu-west-1",
    "PYTHONSTARTUP": "/nowhere",
    "PYTHONWARNINGS": "error",
    "HOME": "/nowhere",
}


def test_variables_that_are_meant_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in MEANT_FOR_OTHERS.items():
        monkeypatch.setenv(name, value)
    with running_emulator() as running:
        given = environment_of(running.pid)
    assert not [name for name, value in MEANT_FOR_OTHERS.items() if given.get(name) == value]
    assert given["BIND_HOST"] == "127.0.0.1"
    assert given["PATH"]


@pytest.mark.parametrize("tied", [True, False])
def test_an_emulator_that_does_not_start_says_why(tied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing.py").write_text("print('the reason'); raise SystemExit(7)")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(emulator, "_TIED", "failing")
    monkeypatch.setattr(emulator, "_UNTIED", "failing")
    with pytest.raises(StackError, match=r"ended at once \(exit code 7\): the reason"):
        start_emulator(tied=tied)


def test_an_emulator_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time; print('still at it', flush=True); time.sleep(60)")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr(emulator, "_TIED", "slow")
    monkeypatch.setattr(emulator, "_USUAL_S", 0.1)
    told: list[str] = []
    with pytest.raises(StackError, match=r"did not start within 2 s: still at it"):
        start_emulator(tied=True, timeout_s=2.0, on_wait=told.append)
    assert told == ["the emulated AWS (ministack) has not started yet; waiting up to 2 s"]


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator of this process is known by its handle, others by what ps says, and without that not at all."""
    monkeypatch.setattr(emulator, "_PROC", tmp_path / "proc")
    info = start_emulator(tied=True)
    assert stop_emulator(info)
    assert not stop_emulator(info)  # another process's may have the id now: ps is asked
    assert not Path(info.directory).exists()

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError("ps")

    monkeypatch.setattr(subprocess, "run", none)
    with pytest.raises(StackError, match=f"cannot be determined whether process {info.pid} is the emulator"):
        stop_emulator(info)
