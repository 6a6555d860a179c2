"""`fsd network prune`, end to end: what it writes, what it compares, and one-line errors."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.network.pruning import prune
from tests.support.cli import Fsd, entries, fsd_in

Matrix = NDArray[np.float64]

WIDTHS = (32, 24, 16, 4)
LABELS = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def network() -> Network:
    rng = np.random.default_rng(1)
    matrices = [rng.standard_normal((n, m)) / m**0.5 for m, n in pairwise(WIDTHS)]
    return Network.from_matrices(matrices, [0.1 * rng.standard_normal(n) for n in WIDTHS[1:]], labels=LABELS)


def samples() -> Matrix:
    rng = np.random.default_rng(2)
    return np.maximum(rng.standard_normal((200, 6)) @ rng.standard_normal((6, 32)), 0)


def outputs(network: Network, x: Matrix) -> Matrix:
    for k, layer in enumerate(network):
        x = x @ layer.weights.toarray().T + layer.bias
        x = np.maximum(x, 0) if k < len(network) - 1 else x
    return x


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    network().save(tmp_path / "net")
    np.save(tmp_path / "x.npy", samples())
    best = outputs(network(), samples()).argmax(axis=1)
    (tmp_path / "y.txt").write_text("".join(f"{LABELS[output]}\n" for output in best))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_it_writes_what_the_library_prunes(fsd: Fsd, place: Path) -> None:
    for flags, expected in (
        (("--sparsity", "0.75"), prune(network(), 0.75)),
        (("--sparsity", "0.75", "--by", "global"), prune(network(), 0.75, by="global")),
        (("--by", "1:4"), prune(network(), by="1:4")),
    ):
        said = fsd("network", "prune", "net", "-o", "out", *flags, "--json")
        assert (said.code, said.stderr) == (0, "")
        saved = Network.load(place / "out")
        assert saved.digest.hex() == said.json()["digest"] == expected.digest.hex()
        assert said.json()["origin"] == saved.origin == expected.origin
        given, left = said.json()["points"]
        assert (given["connections"], left["connections"]) == (network().connections, expected.connections)
        assert left["size"] < given["size"]
        assert left["density"] == expected.connections / network().connections
        assert left["error"] is left["accuracy"] is None
        assert left["wall_s"] > 0 < left["usd"]
    assert entries(place) == {"net", "x.npy", "y.txt", "out", "cache"}


def test_all_connections_may_go(fsd: Fsd, place: Path) -> None:
    said = fsd("network", "prune", "net", "-o", "out", "--sparsity", "0.9999")
    assert (said.code, said.stderr) == (0, "")
    assert Network.load(place / "out").connections == 0
    assert fsd("advise", "out", "--batch", "10", "--queries-per-day", "1e9").code == 0


@pytest.mark.parametrize("method", ["magnitude", "calibrated"])
def test_error_and_accuracy_are_measured_on_samples_that_did_not_calibrate(fsd: Fsd, place: Path, method: str) -> None:
    x = samples()
    compared = x if method == "magnitude" else x[4::5]
    calibrating = None if method == "magnitude" else np.delete(x, slice(4, None, 5), axis=0)
    flags = ("--method", method, "--input", "x.npy", "--labels", "y.txt", "--sparsity", "0.8")
    said = fsd("network", "prune", "net", "-o", "out", *flags, "--json").json()
    pruned = prune(network(), 0.8, x=calibrating)
    assert Network.load(place / "out").digest == pruned.digest
    given, left = said["points"]
    assert (given["error"], given["accuracy"]) == (0, 1)
    expected, found = outputs(network(), compared), outputs(pruned, compared)
    assert left["error"] == pytest.approx(np.linalg.norm(found - expected) / np.linalg.norm(expected), rel=1e-4)
    assert left["accuracy"] == np.mean(found.argmax(axis=1) == expected.argmax(axis=1))


def test_the_curve_as_table_and_plot(fsd: Fsd, place: Path) -> None:
    flags = ("--sparsity", "0.7", "--input", "x.npy", "--labels", "y.txt", "--curve", "--batch", "500")
    said = fsd("network", "prune", "net", "-o", "out", *flags, "--plot", "curve.png")
    assert (said.code, said.stderr) == (0, "")
    rows = [line.split()[1] for line in said.stdout.splitlines() if "serial" in line]
    assert rows == ["given", "50%", "70%", "80%", "90%", "95%", "98%"]
    assert "outputs for 200 samples" in " ".join(said.stdout.split())
    assert "pruned to 70% by layer" in said.stdout
    assert "accuracy" in said.stdout
    assert Network.load(place / "out").digest == prune(network(), 0.7).digest
    assert (place / "curve.png").read_bytes().startswith(b"\x89PNG")
    plain = fsd("network", "prune", "net", "-o", "out", "--sparsity", "0.9")
    assert not any(word in plain.stdout for word in ("error", "accuracy", "outputs for"))
    again = fsd("network", "prune", "net", "-o", "out", "--sparsity", "0.9", "--curve", "--json").json()
    assert [point["name"] for point in again["points"]] == ["given", "50%", "80%", "90%", "95%", "98%"]


def test_a_network_too_large_for_functions_is_said_to_be(
    fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsd_inference.forecast.planner.function_mb", lambda *_, **__: 1e6)
    said = fsd(
        "network", "prune", "net", "-o", "out", "--sparsity", "0.9", "--input", "x.npy", "--plot", "p.svg", "--json"
    )
    assert said.code == 0, said.stderr
    for point in said.json()["points"]:
        assert point["option"].startswith("memory does not fit")
        assert point["wall_s"] is point["usd"] is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--sparsity 1", "the sparsity must be a number from 0 to below 1, not 1.0"),
        ("", "pruning by layer needs a sparsity, such as 0.9"),
        ("--by row --sparsity 0.5", "pruning is by layer, global or n:m such as 2:4, not by 'row'"),
        ("--by 2:4 --sparsity 0.5", "sets the sparsity; omit sparsity"),
        ("--by 2:4 --curve", "--by 2:4 has one sparsity only; omit --curve"),
        ("--sparsity 0.5 --method calibrated", "--method calibrated needs a sample of the inputs: give --input FILE"),
        ("--sparsity 0.5 --labels y.txt", "give --input FILE as well"),
        ("--sparsity 0.5 --plot curve.png", "--plot draws the error of the outputs for --input: give --input FILE"),
        ("--sparsity 0.5 --input x.npy --plot curve.gif", "curve.gif must end in"),
        ("--sparsity 0.5 --input x.npy --plot out", "output and plot are both out"),
        ("--sparsity 0.5 --input absent.npy", "absent.npy cannot be read"),
        ("--sparsity 0.5 --input x.npy --labels absent.txt", "absent.txt cannot be read"),
        ("--sparsity 0.5 --input x.npy --labels few.txt", "--labels has 1 classes, but --input 200 samples"),
        ("--sparsity 0.5 --input four.npy --method calibrated", "needs at least 5 samples"),
        ("--sparsity 0.5 --input four.npy --labels eels.txt", "'eel' is no class of the network, which has ['ant'"),
    ],
)
def test_errors_are_one_line_and_write_nothing(fsd: Fsd, place: Path, flags: str, says: str) -> None:
    (place / "few.txt").write_text("ant\n")
    (place / "eels.txt").write_text("eel\n" * 4)
    np.save(place / "four.npy", samples()[:4])
    said = fsd("network", "prune", "net", "-o", "out", *flags.split())
    assert said.code == 2
    assert says in said.error()
    assert "out" not in entries(place)
