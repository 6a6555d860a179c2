"""Options from environment variables, what shells complete, and progress without a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsd_inference.channel_names import CHANNELS
from fsd_inference.cli import options
from fsd_inference.cli.completion import networks
from fsd_inference.network import random_network
from fsd_inference.partitioning import METHODS, partition
from tests.support.cli import Fsd, fsd_in

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the network `net`, its shards `shards/two` and inputs `x.npy`."""
    network = random_network([8, 6, 4], 3, seed=1)
    network.save(tmp_path / "net")
    (tmp_path / "shards").mkdir()
    partition(network, tmp_path / "shards" / "two", workers=2)
    np.save(tmp_path / "x.npy", np.ones((3, 8)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


INFER = ("infer", "net", "x.npy", "-o", "out.npz")


@pytest.mark.parametrize(
    ("variable", "value", "command", "says"),
    [
        ("FSD_CHANNEL", "pigeon", INFER, "'--channel' (env var: 'FSD_CHANNEL'): 'pigeon' is not one of"),
        ("FSD_STACK", "nowhere.json", INFER, "nowhere.json: No such file or directory (FSD_STACK is nowhere.json)"),
        ("FSD_STACK", "x.npy", ("runs", "list"), "(FSD_STACK is x.npy)"),
        ("FSD_REGION", "mars-1", ("advise", "net", "--batch", "9"), "'mars-1' (it has those of us-east-1)"),
        ("FSD_REGION", "mars-1", ("advise", "net", "--batch", "9"), "(FSD_REGION is mars-1)"),
        ("FSD_PRICES", "none.json", ("advise", "net", "--batch", "9"), "(FSD_PRICES is none.json)"),
    ],
)
def test_errors_name_the_variable(
    variable: str, value: str, command: tuple[str, ...], says: str, place: Path, fsd: Fsd, monkeypatch: Any
) -> None:
    monkeypatch.setenv(variable, value)
    said = fsd(*command)
    assert said.code == 2
    assert says in said.error()


def test_flags_take_precedence(place: Path, fsd: Fsd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_CHANNEL", "local")
    assert fsd(*INFER, "--workers", 2, "--json").json()["channel"] == "local"
    assert fsd(*INFER, "--channel", "serial", "--json").json()["channel"] == "serial"
    monkeypatch.setenv("FSD_CHANNEL", "")  # is as good as none
    assert fsd(*INFER, "--json").json()["channel"] == "serial"
    for flag in (("--stack", "other.json"), ("--stack=other.json",)):
        monkeypatch.setenv("FSD_STACK", "other.json")
        assert "FSD_STACK" not in fsd(*INFER, *flag).error()
    monkeypatch.delenv("FSD_STACK")
    monkeypatch.setenv("FSD_CHANNEL", "local")
    assert "FSD_CHANNEL" in fsd(*INFER, "--plan", "auto").error()


def test_a_value_within_another_word_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSD_REGION", "mars-1")
    assert options.variable_of("no prices of 'mars-1'", []) == "FSD_REGION"
    assert options.variable_of("no prices of mars-10 in a/mars-1", []) is None


@pytest.mark.parametrize("command", [("infer",), ("push",), ("runs", "list"), ("cost",), ("advise",)])
def test_help_and_documentation_name_the_variables(command: tuple[str, ...], fsd: Fsd) -> None:
    documented = (ROOT / "docs" / "guides" / "run.md").read_text()
    shown = re.findall(r"env\s+var:\s+(\w+)", fsd(*command, "--help").stdout)
    assert shown
    for variable in shown:
        assert f"| `{variable}` | `{options.SETTINGS[variable]}`" in documented


def completed(line: str) -> list[str]:
    """Return what bash is told to propose for the last word of a line."""
    words = line.split(" ")
    asked = {"_FSD_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "fsd_inference"], env=os.environ | asked, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_shells_complete_commands_values_and_networks(place: Path) -> None:
    assert completed("fsd inf") == ["infer"]
    assert completed("fsd infer net x.npy --channel ") == list(CHANNELS)
    assert set(completed("fsd infer net x.npy --partition ")) == set(METHODS)
    assert completed("fsd infer ") == ["net", "shards/"]
    assert completed("fsd push shards/") == ["shards/two"]
    assert completed("fsd network info n") == ["net"]


def test_networks_are_found_by_their_names(place: Path) -> None:
    (place / ".hidden").mkdir()
    assert networks("") == ["net", "shards/"]
    assert networks("./n") == ["./net"]
    assert networks(f"{place}/shards/t") == [f"{place}/shards/two"]
    assert networks(".h") == [".hidden/"]
    assert networks("nowhere/") == networks("x") == []


def test_bash_is_given_a_script_for_the_program(fsd: Fsd) -> None:
    assert "--install-completion" in fsd("--help").stdout
    asked = os.environ | {"_FSD_COMPLETE": "source_bash"}
    done = subprocess.run(
        [sys.executable, "-m", "fsd_inference"], env=asked, capture_output=True, text=True, check=True
    )
    assert "complete -o default -F _fsd_completion fsd" in done.stdout


def test_progress_is_drawn_on_terminals_only(place: Path) -> None:
    command = [sys.executable, "-m", "fsd_inference", *INFER, "--channel", "local", "--workers", "2"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=theirs, check=True)
    os.close(theirs)
    assert b"partition" in os.read(ours, 1 << 16)
    os.close(ours)
