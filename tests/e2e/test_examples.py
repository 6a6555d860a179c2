"""The scripts in examples/ run and print the documented results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.functions import functions_stack

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = pytest.mark.emulator


def lines_of(script: str, place: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_three_channels(tmp_path: Path) -> None:
    local, queue, object_, last = lines_of("three_channels.py", tmp_path)
    assert local == "local: 3 workers, 0 requests"
    assert re.fullmatch(r"queue: 3 workers, [1-9]\d* requests", queue)
    assert re.fullmatch(r"object: 3 workers, [1-9]\d* requests", object_)
    assert last == "serial, local, queue and object: all bits are equal"


def test_report_and_cost(tmp_path: Path) -> None:
    first, *middle, last = lines_of("report_and_cost.py", tmp_path)
    assert first.endswith(f"open {Path('run1', 'report.html')}")
    assert {file.name for file in (tmp_path / "run1").iterdir()} == {"report.json", "report.html", "trace.json"}
    saved = json.loads((tmp_path / "run1" / "report.json").read_text())
    counts = {kind: int(count) for count, kind in (line.split() for line in middle if "USD" not in line)}
    assert counts == saved["requests"]
    costs = {service: float(usd) for _, usd, service in (line.split() for line in middle if "USD" in line)}
    assert costs.keys() == {"Lambda", "SNS", "SQS", "S3"}
    assert float(last.split()[1]) == pytest.approx(sum(costs.values()), rel=0.01)


def test_sklearn_digits(tmp_path: Path) -> None:
    found = [
        re.fullmatch(r"(\w[\w ,-]*): ([\d.]+)% of 360 digits are right", line)
        for line in lines_of("sklearn_digits.py", tmp_path)[1:]
    ]
    accuracy = {match[1]: float(match[2]) for match in found if match}
    assert accuracy.keys() == {"trained", "pruned, scikit-learn", "pruned, 3 workers"}
    assert accuracy["trained"] > 90
    assert accuracy["pruned, scikit-learn"] == accuracy["pruned, 3 workers"] > 80


@pytest.mark.frameworks
@pytest.mark.parametrize("place", ["processes", "functions"])
def test_cnn_pruned(place: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="no torch: pip install 'fsd-inference[torch]' to import PyTorch modules")
    if place == "functions":
        with functions_stack(tmp_path, ranks=3):
            *steps, check, workers, same, plot = lines_of("cnn_pruned.py", tmp_path, "--stack", "stack.json")
    else:
        *steps, check, workers, same, plot = lines_of("cnn_pruned.py", tmp_path)
    found = [re.fullmatch(r"(\d+)% of the weights, ([\d,]+) connections: ([\d.]+)% are right", line) for line in steps]
    kept = [(int(match[1]), int(match[2].replace(",", "")), float(match[3])) for match in found if match]
    assert [share for share, _, _ in kept] == [100, 50, 25, 10]
    assert sorted((count for _, count, _ in kept), reverse=True) == [count for _, count, _ in kept]
    assert min(accuracy for _, _, accuracy in kept) > 90
    assert check.startswith("the network agrees with Sequential")
    invocations = {"processes": 0, "functions": 4}[place]  # three workers and the coordinator
    right = f"{kept[-1][2]:.1f}% of 360 digits are right"
    assert workers == f"3 workers, {invocations} invocations of functions: {right}"
    assert same == "all bits are those of the serial run"
    assert plot == "plot: cnn_pruned.png"
    assert (tmp_path / "cnn_pruned.png").read_bytes().startswith(b"\x89PNG")


def test_prune_digits(tmp_path: Path) -> None:
    *networks, same, drawn = lines_of("prune_digits.py", tmp_path)
    found = [
        re.fullmatch(r"(\w[\w, ]*): ([\d,]+) connections, ([\d.]+)% of 360 digits are right", line) for line in networks
    ]
    right = {match[1]: (int(match[2].replace(",", "")), float(match[3])) for match in found if match}
    assert list(right) == ["dense", "magnitude, by layer", "calibrated, by layer", "calibrated, globally"]
    assert right["dense"][0] == 50432
    assert {connections for connections, _ in list(right.values())[1:]} == {5043}
    assert right["dense"][1] > 95
    assert right["magnitude, by layer"][1] < 50
    assert min(right["calibrated, by layer"][1], right["calibrated, globally"][1]) > 90
    assert same == "calibrated, globally: all bits of serial and queue are equal"
    assert drawn.startswith("pruned.png")
    assert (tmp_path / "pruned.png").read_bytes().startswith(b"\x89PNG")


def test_recommender(tmp_path: Path) -> None:
    popular, fitted, pruned, same, *users, _ = lines_of("recommender.py", tmp_path)
    text = r"{}: ([\d.]+)% of ten recommended items were bought"
    bought = [
        re.match(text.format(name), line)
        for name, line in (("most popular", popular), ("fitted", fitted), ("pruned", pruned))
    ]
    most_popular, by_fitted, by_pruned = (float(match[1]) for match in bought if match)
    assert most_popular < 3
    assert min(by_fitted, by_pruned) > 15
    connections = [int(line.split()[-2].replace(",", "")) for line in (fitted, pruned)]
    assert connections[1] < connections[0] / 5
    assert same == "object, 4 workers: all bits are those of the serial run"
    assert [re.fullmatch(r"user \d: items (\d+\*?, ){4}\d+\*?", line) is not None for line in users] == [True] * 3


def test_every_example_is_tried() -> None:
    assert {file.name for file in EXAMPLES.iterdir() if file.suffix == ".py"} == {
        "cnn_pruned.py",
        "prune_digits.py",
        "recommender.py",
        "report_and_cost.py",
        "sklearn_digits.py",
        "three_channels.py",
    }
