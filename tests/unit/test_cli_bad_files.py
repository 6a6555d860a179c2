"""Corrupt files given to the cost commands: one-line errors that name file and field, and no output."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.timing import Sourced, timing_json
from fsd_inference.network import random_network
from fsd_inference.simulator import simulate
from tests.support.cli import Fsd, fsd_in
from tests.support.scenarios import scenario

Change = Callable[[dict[str, Any]], object]

PRICES = load_prices().to_json()
TIMING = timing_json("mine", "2026-11", "aws", {"publish.median_s": Sourced(0.01, "a test")})
REPORT = json.loads(json.dumps(simulate(scenario(3, 4)).report().to_json()))
NOT_JSON = {"cut": b'{"format": ', "bytes": bytes(range(128, 256)), "nothing": b"", "deep": b"[" * 100_000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, inputs and a run that are as they should be."""
    made = tmp_path_factory.mktemp("bad")
    random_network([24] * 3, 4, seed=1).save(made / "net")
    sparse.save_npz(made / "wide.npz", sparse.csr_array(np.ones((2, 30), np.float32)))
    (made / "run").mkdir()
    (made / "run" / "report.json").write_text(json.dumps(REPORT))
    (made / "empty").mkdir()
    (made / "file").write_text("a file")
    return made


@pytest.fixture
def failed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], str]:
    """Return a function that runs a command which must fail, and returns its line."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fsd: Fsd = fsd_in(capsys)

    def run(command: str) -> str:
        before = contents(folder)
        said = fsd(*command.split())
        assert (said.code, said.stdout) == (2, ""), said
        assert contents(folder) == before
        return said.error()

    return run


def contents(folder: Path) -> dict[Path, int]:
    """Return all files and directories, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def write(value: dict[str, Any], change: Change, path: Path) -> None:
    changed = deepcopy(value)
    change(changed)
    path.write_text(json.dumps(changed))


# --- prices and timing ------------------------------------------------------------------------------------------------

WITH_PRICES = (
    "prices show",
    "cost run",
    "report run -o page.html",
    "simulate net --samples 5 --workers 2 --report simulated",
    "advise net --batch 5 -o plot.png",
    "study net --pattern sporadic --queries-per-day 3 --write-trace trace.csv",
)
SNS = "prices.sns.publish.tiers[0].usd"


def first_tier(**change: object) -> Change:
    return lambda value: value["prices"]["sns.publish"]["tiers"][0].update(change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (first_tier(usd=-1), f"'{SNS}' must be a number of dollars, 0 or more, not -1"),
        (first_tier(usd=float("nan")), f"'{SNS}' must be a number of dollars, 0 or more, not nan"),
        (first_tier(usd=10**400), f"'{SNS}' must be a number of dollars, 0 or more, not 1000"),
        (first_tier(usd="free"), f"'{SNS}' must be a number, not 'free'"),
        (lambda value: value.pop("prices"), "'prices' is missing"),
        (lambda value: value.update(version=2), "price files of version 2 are not supported; this release reads 1"),
        (lambda value: value.update(format="fsd-timing"), "this is not a price file"),
    ],
)
def test_wrong_prices(failed: Callable[[str], str], folder: Path, change: Change, said: str) -> None:
    write(PRICES, change, folder / "file")
    for command in WITH_PRICES:
        line = failed(f"{command} --prices file")
        assert line.startswith("file: ")
        assert said in line


def test_missing_prices_are_named(failed: Callable[[str], str], folder: Path) -> None:
    write(PRICES, lambda value: value["prices"].pop("sns.publish"), folder / "file")
    for command in (each for each in WITH_PRICES if not each.startswith(("prices", "report"))):
        assert "have no price 'sns.publish'; add it to a price file" in failed(f"{command} --prices file")


def test_a_region_may_lack_express_microvms_and_servers(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder)
    names = [name for name in PRICES["prices"] if not name.startswith(("s3express.", "microvm.", "ec2."))]
    write(PRICES, lambda value: value.update(prices={name: value["prices"][name] for name in names}), folder / "file")
    said = fsd_in(capsys)("advise", "net", "--batch", 5, "--prices", "file", "--cache", tmp_path, "--json")
    assert {option["variant"] for option in said.json()["options"]} == {"serial", "queue", "object"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value["values"]["publish.median_s"].update(value=-1), "'values.publish.median_s.value' must be"),
        (lambda value: value["values"]["publish.median_s"].update(unit="m"), "unit' must be 's', not 'm'"),
        (lambda value: value["values"].update({"publish.mean_s": {}}), "'publish.mean_s' is not a timing value"),
        (lambda value: value.update(base="moon"), "'base' must be aws or emulator, not 'moon'"),
        (lambda value: value.pop("values"), "'values' is missing"),
        (lambda value: value.update(version=0), "timing files of version 0 are not supported; this release reads 1"),
    ],
)
def test_wrong_timing(failed: Callable[[str], str], folder: Path, change: Change, said: str) -> None:
    write(TIMING, change, folder / "file")
    for command in WITH_PRICES[3:]:
        line = failed(f"{command} --timing file")
        assert line.startswith("file: ")
        assert said in line


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json(failed: Callable[[str], str], folder: Path, content: bytes) -> None:
    (folder / "file").write_bytes(content)
    commands = [f"{command} --prices file" for command in WITH_PRICES]
    commands += [f"{command} --timing file" for command in WITH_PRICES[3:]]
    commands += ["cost file", "report file -o page.html", "report run file", "calibrate -o fit.json --runs file"]
    for command in commands:
        assert failed(command).startswith("file: is not JSON"), command


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.pop("samples"), "'samples' is missing"),
        (lambda value: value.update(version=2), "reports of version 2 are not known; this release reads 1"),
        (lambda value: value.update(samples=-5), "'samples' must be at least 0, not -5"),
        (lambda value: value.update(workers=0), "'workers' must be at least 1, not 0"),
        (lambda value: value.update(wall_s=10**400), "'wall_s' must be a number of seconds, not 1000"),
        (lambda value: value.update(wall_s=float("nan")), "'wall_s' must be a number of seconds, not nan"),
        (lambda value: value.update(requests={"sns.publish": -4}), "'requests.sns.publish' must be at least 0"),
        (lambda value: value.update(received_bytes=-1), "'received_bytes' must be at least 0, not -1"),
        (lambda value: value.update(memory_mb=0), "'memory_mb' must be at least 1, not 0"),
        (lambda value: value.update(coordinators=[[5, 1]]), "'coordinators' must be pairs of times, not [5, 1]"),
        (lambda value: value.update(predicted={"usage": {}}), "'predicted.functions' is missing"),
        (lambda value: value.update(ranks={}), "'ranks' must be a list, not {}"),
    ],
)
def test_wrong_reports(failed: Callable[[str], str], folder: Path, change: Change, said: str) -> None:
    write(REPORT, change, folder / "file")
    for command in ("cost file", "report file -o page.html --plots", "report run file", "calibrate -o x --runs file"):
        line = failed(command)
        assert line.startswith("file: is not a run's report: ")
        assert said in line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"started": "noon"}, "'ranks[1].started' must be a number, not 'noon'"),
        ({"started": float("nan")}, "'ranks[1].started' must be a number of seconds"),
        ({"ended": None}, "of the report does not say when it started and ended"),
        ({"rank": -1}, "'ranks[1].rank' must be at least 0, not -1"),
        ({"layers": "x"}, "'ranks[1].layers' must be a list, not 'x'"),
        ({"events": [["wait"]]}, "'ranks[1].events[0]' must be a name, two whole numbers and two times, not ['wait']"),
        ({"version": 2}, "ranks[1]: reports of version 2 are not known; this release reads 1"),
    ],
)
def test_wrong_ranks(failed: Callable[[str], str], folder: Path, change: dict[str, object], said: str) -> None:
    write(REPORT, lambda value: value["ranks"][1].update(change), folder / "file")
    for command in ("cost file", "calibrate -o fit.json --runs run --runs file"):
        line = failed(command)
        assert line.startswith("file: ") or "ended" in change
        assert said in line


@pytest.mark.parametrize("command", ["cost {}", "report {} -o page.html", "report run {}", "calibrate -o x --runs {}"])
def test_there_is_no_report(failed: Callable[[str], str], command: str) -> None:
    assert failed(command.format("empty")) == "empty/report.json: cannot be read (No such file or directory)"
    assert failed(command.format("nowhere")) == "nowhere: cannot be read (No such file or directory)"
    assert "net/report.json: cannot be read" in failed(command.format("net"))


# --- traces -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trace", "said"),
    [
        (b"", "file, line 1: must be 'seconds,samples', not ''"),
        (b"seconds,samples\n", "file: the trace is empty"),
        (b"time,rows\n1,5\n", "file, line 1: must be 'seconds,samples', not 'time,rows'"),
        (b"1,5\n", "file, line 1: must be 'seconds,samples', not '1,5'"),
        (b"samples,seconds\n1,5\n", "file, line 1: must be 'seconds,samples', not 'samples,seconds'"),
        (b"seconds;samples\n1,5;3\n", "file, line 2: must be seconds and samples (decimals have a point), not '1,5;3'"),
        (b"seconds;samples\n1,5\n", "file, line 2: must be seconds and samples (decimals have a point), not '1,5'"),
        (b'seconds,samples\n"1,5",3\n', "file, line 2: must be seconds and samples, not '\"1,5\",3'"),
        (b"seconds,samples\r\n1,5\r\n\r\n2;5\r\n", "file, line 4: must be seconds and samples, not '2;5'"),
        (b'seconds,samples\n"1,5\n2,5\n', "file, line 2: must be"),
        (b"seconds,samples\n1,5\n\0,5\n", "file, line 3: must be"),
        (b"seconds,samples\n1_0,5\n", "file, line 2: must be"),
        (b"seconds,samples\n1,5,\n", "file, line 2: must be"),
        (b"seconds,samples\n1,5\nnoon,5\n", "file, line 3: must be seconds and samples, not 'noon,5'"),
        (b"seconds,samples\n1,5.5\n", "file, line 2: must be seconds and samples, not '1,5.5'"),
        (b"seconds,samples\n1\n", "file, line 2: must be seconds and samples, not '1'"),
        (b"seconds,samples\n1,0\n", "file, line 2: samples must be 1 to 1,000,000,000, not 0"),
        (b"seconds,samples\n1,99999999999999999999\n", "samples must be 1 to 1,000,000,000, not 99999999999999999999"),
        (
            b"seconds,samples\nnan,5\n",
            "file, line 2: seconds since midnight must be at least 0 and below 86400, not nan",
        ),
        (b"seconds,samples\n86400,5\n", "seconds since midnight must be at least 0 and below 86400, not 86400"),
        (b"seconds,samples\n1," + 200_000 * b"9", "file, line 2: must be seconds and samples, not '1,999"),
        (bytes(range(128, 256)), "file: is not text"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_wrong_traces(failed: Callable[[str], str], folder: Path, trace: bytes, said: str) -> None:
    (folder / "file").write_bytes(trace)
    assert said in failed("study net --trace file --write-trace other.csv")


# --- numbers and places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("advise net --batch 0", "samples must be 1 to 1,000,000,000, not 0"),
        ("advise net --batch 99999999999999999999", "samples must be 1 to 1,000,000,000"),
        ("advise net --batch 5 --input wide.npz", "wide.npz has 30 features per sample, but the network takes 24"),
        ("advise net --batch 5 --deadline parsecs", "--deadline must be a number with a unit of ms, s, m or h"),
        ("advise net --batch 5 --deadline 0", "a deadline must be more than 0 seconds"),
        ("advise net --batch 5 --budget nan", "a budget must be more than 0 dollars a query, not nan"),
        ("advise net --batch 5 --queries-per-day 0", "more than 0 queries a day"),
        ("advise net --batch 5 --most-workers 1001", "most_workers must be 1 to 1,000, not 1,001"),
        ("advise net --batch 5 -o nowhere/plot.png", "nowhere is not a directory; make it first"),
        ("advise net --batch 5 -o empty", "empty is a directory, but the output is a file"),
        ("advise empty --batch 5", "empty is not a network"),
        (
            "study net --pattern bursty --queries-per-day 0",
            "a day must have more than 0 and at most 1,000,000 queries, not",
        ),
        ("study net --pattern bursty --queries-per-day 1e9", "more than 0 and at most 1,000,000 queries, not 1e+09"),
        (
            "study net --pattern bursty --queries-per-day nan",
            "a day must have more than 0 and at most 1,000,000 queries, not",
        ),
        ("study net --pattern bursty --batch 0", "samples must be 1 to 1,000,000,000, not 0"),
        ("study net --pattern bursty --write-trace nowhere/t.csv", "nowhere is not a directory"),
        ("study net --trace nowhere.csv", "nowhere.csv: cannot be read"),
        (
            "study net --pattern bursty --deadline 0.000001ms --batch 5 --queries-per-day 5",
            "within these limits: the fastest is",
        ),
        ("study net --pattern bursty --region mars-1", "the package has no prices of region 'mars-1'"),
        ("simulate net --samples 0", "--samples"),
        ("simulate net --samples 5 --region mars-1 --report simulated", "the package has no prices of region 'mars-1'"),
        ("simulate net --samples 5 --report net", "NETWORK and report are both net"),
        ("simulate net --samples 5 --report run/report.json", "is a file, but the output is a directory"),
        ("simulate net --samples 5 --report nowhere/run", "nowhere is not a directory"),
        ("simulate net wide.npz", "wide.npz has 30 features per sample, but the network takes 24"),
        ("simulate --launch --report simulated", "--launch takes no network and writes no report"),
        ("calibrate -o nowhere/fit.json --runs run", "nowhere is not a directory"),
        ("calibrate -o empty --runs run", "empty is a directory"),
        ("report run -o nowhere/page.html", "nowhere is not a directory"),
        ("report run run", "a run is given twice"),
        ("prices update --region us-east-1 -o empty", "empty is a directory"),
    ],
)
def test_wrong_numbers_and_places(failed: Callable[[str], str], command: str, said: str) -> None:
    assert said in failed(command)
