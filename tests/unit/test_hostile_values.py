"""Valid files whose values are replaced one at a time: commands end with one line and exit code 2, or read the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.aws.stack import save_stack
from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.timing import Sourced, timing_json
from fsd_inference.network import random_network
from fsd_inference.simulator import simulate
from fsd_inference.stack_description import EmulatorInfo, FunctionsSpec, LaneSpec, StackSpec, WorkerFunction
from tests.support.cli import Fsd, fsd_in
from tests.support.hostile import changed
from tests.support.little_memory import little_memory
from tests.support.reports import made_up
from tests.support.scenarios import scenario

STACK = StackSpec(
    name="s",
    endpoint_url="http://127.0.0.1:9",
    region="us-east-1",
    lanes=(LaneSpec(("arn:aws:sns:us-east-1:000000000000:t",), ("http://127.0.0.1:9/000000000000/q",)),),
    run_buckets=("runs",),
    network_bucket="networks",
    functions=FunctionsSpec(
        "arn:aws:lambda:us-east-1:000000000000:function:c",
        (WorkerFunction(1769, "arn:aws:lambda:us-east-1:000000000000:function:w"),),
        "http://127.0.0.1:9/000000000000/f",
        900.0,
    ),
    emulator=EmulatorInfo("http://127.0.0.1:9", 2**22 - 1, "0" * 32, "/tmp/fsd-emulator-none"),
)


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """A reader that takes what a file claims raises MemoryError, which no test expects."""
    with little_memory():
        yield


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its shards and a batch."""
    made = tmp_path_factory.mktemp("hostile")
    random_network([16] * 3, 4, seed=1).save(made / "net")
    sparse.save_npz(made / "in.npz", sparse.csr_array(np.ones((2, 16), np.float32)))
    return made


def check(fsd: Fsd, file: Path, value: object, *commands: tuple[str | Path, ...]) -> int:
    """Run commands on each changed document; return how often they refused it."""
    refused = 0
    for place, text in changed(value):
        file.write_text(text)
        for command in commands:
            said = fsd(*command)
            assert said.code in {0, 1, 2}, (place, text[:300])
            if said.code:
                said.error()
                refused += 1
            assert "\x1b[2J" not in said.stdout + said.stderr, (place, text[:300])
    return refused


def test_reports(fsd: Fsd, tmp_path: Path) -> None:
    report = json.loads(made_up(2, layers=2).to_text())
    page = tmp_path / "page.html"
    file = tmp_path / "report.json"
    assert check(fsd, file, report, ("report", file, "-o", page), ("cost", file)) > 1000


def test_simulated_reports(fsd: Fsd, tmp_path: Path) -> None:
    report = simulate(scenario(1, 2)).report().to_json()
    file = tmp_path / "report.json"
    assert check(fsd, file, report, ("report", file, "--json")) > 500


def test_stacks(fsd: Fsd, tmp_path: Path) -> None:
    file = tmp_path / "stack.json"
    save_stack(STACK, file)
    value = json.loads(file.read_text())
    assert check(fsd, file, value, ("stack", "down", "--stack", file, "--json")) > 300


def test_prices_and_timing(fsd: Fsd, tmp_path: Path, folder: Path) -> None:
    file = tmp_path / "file"
    prices = load_prices().to_json()
    prices["prices"] = dict(list(prices["prices"].items())[:2])
    timing = timing_json("mine", "2026-11", "aws", {"publish.median_s": Sourced(0.01, "a test")})
    assert check(fsd, file, prices, ("prices", "show", "--prices", file)) > 100
    simulated = ("simulate", folder / "net", "--samples", "5", "--timing", file)
    assert check(fsd, file, timing, simulated) > 50


def test_networks(fsd: Fsd, tmp_path: Path, folder: Path) -> None:
    (manifest,) = (folder / "net").glob("*.json")
    value = json.loads(manifest.read_text())
    try:
        assert check(fsd, manifest, value, ("network", "info", folder / "net")) > 100
    finally:
        manifest.write_text(json.dumps(value))


def test_shards(fsd: Fsd, tmp_path: Path, folder: Path) -> None:
    assert fsd("partition", folder / "net", "--workers", "2", "-o", tmp_path / "shards").code == 0
    (manifest,) = (tmp_path / "shards").glob("*.json")
    value = json.loads(manifest.read_text())
    command = ("infer", tmp_path / "shards", folder / "in.npz", "-o", tmp_path / "out.npz", "--channel", "serial")
    assert check(fsd, manifest, value, command) > 100
