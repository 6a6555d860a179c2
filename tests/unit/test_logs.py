"""Logging: silent by default, with run and rank in each record, also in the processes of ranks."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fsd_inference import logs
from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Started, Ticked
from fsd_inference.engine.telling import Teller
from fsd_inference.errors import SettingError
from fsd_inference.network import random_network
from tests.support.cli import Fsd, fsd_in


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = logging.getLogger("fsd_inference")
    handlers, level = list(package.handlers), package.level
    monkeypatch.delenv("FSD_LOG", raising=False)
    yield
    package.handlers[:] = handlers
    package.setLevel(level)


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    random_network([12, 8, 6], 4, seed=1).save(tmp_path / "net")
    np.save(tmp_path / "x.npy", np.ones((3, 12), np.float32))
    return tmp_path


def infer(place: Path, *flags: str, **variables: str) -> list[str]:
    command = [sys.executable, "-m", "fsd_inference", *flags, "infer", "net", "x.npy", "-o", "out.npz"]
    command += ["--channel", "local", "--workers", "3"]
    done = subprocess.run(
        command, cwd=place, env=os.environ | variables, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stderr.splitlines()


def test_silent_unless_asked_for(place: Path) -> None:
    assert infer(place) == []


def test_verbose_tells_of_attempts(place: Path) -> None:
    begins, ends = infer(place, "--verbose")
    assert begins.endswith("attempt 0 begins: 3 ranks over local")
    assert ends.endswith("attempt 0 ended: success")


def test_ranks_log_where_their_starter_does(place: Path) -> None:
    of_ranks = [line for line in infer(place, FSD_LOG="debug") if "fsd_inference.engine" in line]
    for rank in range(3):
        (loaded,) = [line for line in of_ranks if f"rank={rank} loaded 2 of 2 layers" in line]
        assert "run=" in loaded
    assert any("DATA of layer 0, micro-batch 0 from rank" in line for line in of_ranks)


def test_there_are_few_levels(fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_LOG", "loud")
    said = fsd("network", "info", place / "net")
    assert said.code == 2
    assert said.error() == "FSD_LOG must be one of debug, info, warning, error, not 'loud'"
    with pytest.raises(SettingError):
        logs.start("chatty")


def test_one_handler_however_often_it_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("info")
    logs.start("INFO ")
    logs.Logger("fsd_inference.some", run="a" * 32, rank=3).info("once")
    logs.Logger("fsd_inference.some").debug("too much")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(" INFO    fsd_inference.some run=aaaaaaaa rank=3 once")


def test_functions_log_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.start("warning", as_json=True)
    logs.Logger("fsd_inference.some", run="b").warning("one %s", "line")
    value = json.loads(capsys.readouterr().out)
    assert value.pop("time") > 0
    assert value == {"level": "WARNING", "message": "one line", "logger": "fsd_inference.some", "run": "b", "rank": "-"}


def test_a_users_own_configuration() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(run)s %(rank)s %(message)s"))
    package = logging.getLogger("fsd_inference")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    logs.Logger("fsd_inference.some", run="c", rank=0).info("hello")
    assert stream.getvalue() == "c 0 hello\n"
    with logs.handed_down() as handed_down:
        assert handed_down is not None
        assert handed_down[0] == "info"
    package.setLevel(logging.WARNING)
    with logs.handed_down() as handed_down:
        assert handed_down is None


def test_a_rank_that_waits_says_for_what(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    caplog.set_level(logging.INFO, "fsd_inference")
    teller = Teller("r" * 32, 2, lambda: now[0])
    expected = [Expected(Kind.DATA, 4, 0, source) for source in (3, 1)]
    teller.tell(Started(), ())
    now[0] += 4.9
    teller.tell(Ticked(), expected)
    assert caplog.messages == []
    now[0] += 0.2
    teller.tell(Ticked(), expected)
    now[0] += 1.0
    teller.tell("a turn of the receiver", expected)
    assert caplog.messages == ["has waited 5 s for DATA of layer 4, micro-batch 0 from ranks 1, 3"]
    now[0] += 5.0
    teller.tell(Ticked(), ())
    assert caplog.messages[1] == "has waited 11 s for its own work, or for its children to start"
    assert {(record.__dict__["run"], record.__dict__["rank"]) for record in caplog.records} == {("r" * 32, 2)}
