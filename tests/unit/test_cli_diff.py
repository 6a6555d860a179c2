"""`fsd diff` and `fsd infer --verify-against`: what differs is named, and what cannot be compared is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fsd_inference.cli.main import run
from fsd_inference.digests import Digests
from fsd_inference.network import Layer, Network, random_network
from fsd_inference.partitioning import load_plan, partition
from fsd_inference.partitioning.manifest import MANIFEST_FILE
from fsd_inference.report.difference import Difference, first_difference
from fsd_inference.run_report import RunReport
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.reports import made_up, rank_value

WORKERS, FAULTY_LAYER, FAULTY_RANK = 3, 2, 1


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def one_bit_flipped(network: Network, layer: int, neuron: int) -> Network:
    """Return a network with the lowest bit of the first weight of a neuron flipped."""
    layers = list(network)
    weights = layers[layer].weights.copy()
    weights.data.view(np.uint32)[weights.indptr[neuron]] ^= 1
    layers[layer] = Layer(weights, layers[layer].bias, layers[layer].groups)
    return Network(layers)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network `net`, its shards `shards`, `faulty` ones of which one has a wrong weight, and inputs `x.npy`."""
    place = tmp_path_factory.mktemp("diff")
    weights = random_network((24, 30, 28, 20, 16), 6, seed=4)
    network = Network([Layer(abs(layer.weights), np.zeros(1, np.float32)) for layer in weights])
    network.save(place / "net")
    np.save(place / "x.npy", np.random.default_rng(1).random((11, 24), np.float32))
    np.save(place / "y.npy", np.random.default_rng(2).random((11, 24), np.float32))
    partition(network, place / "shards", workers=WORKERS, method="block")
    partition(network, place / "faulty", workers=WORKERS, method="block")
    neuron = int(load_plan(place / "shards")[0].rows(FAULTY_LAYER, FAULTY_RANK)[0])
    partition(one_bit_flipped(network, FAULTY_LAYER, neuron), place / "other", workers=WORKERS, method="block")
    # A shard that was cut from other weights, under the name of the network.
    manifests = [json.loads((place / name / MANIFEST_FILE).read_text()) for name in ("faulty", "other")]
    entry = manifests[0]["shards"][FAULTY_RANK] = manifests[1]["shards"][FAULTY_RANK]
    (place / "faulty" / MANIFEST_FILE).write_text(json.dumps(manifests[0]))
    (place / "faulty" / entry["file"]).write_bytes((place / "other" / entry["file"]).read_bytes())
    return place


RUNS: dict[str, tuple[str, ...]] = {
    "serial": ("net", "x.npy"),
    "replicas": ("net", "x.npy", "--replicas", "2"),
    "ranks": ("shards", "x.npy", "--channel", "local", "--micro-batches", "2"),
    "wrong": ("faulty", "x.npy", "--channel", "local"),
    "rounded": ("shards", "x.npy", "--channel", "local", "--wire", "bfloat16"),
    "inputs": ("net", "y.npy"),
    "network": ("other", "x.npy", "--channel", "local"),
}


@pytest.fixture(scope="module")
def runs(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of all `RUNS`, and of one without digests."""
    place = tmp_path_factory.mktemp("runs")
    for name, (network, inputs, *more) in RUNS.items():
        command = [
            "infer",
            made / network,
            made / inputs,
            "-o",
            place / "out.npz",
            "--verify",
            "--report",
            place / name,
        ]
        assert run([str(each) for each in [*command, *more]]) == 0
    assert (
        run(
            [
                "infer",
                str(made / "net"),
                str(made / "x.npy"),
                "-o",
                str(place / "o.npz"),
                "--report",
                str(place / "plain"),
            ]
        )
        == 0
    )
    return place


def test_equal_runs_are_the_same(fsd: Fsd, runs: Path) -> None:
    for one, other in (("serial", "replicas"), ("serial", "ranks"), ("ranks", "serial"), ("ranks", "ranks")):
        said = fsd("diff", runs / one, runs / other / "report.json")
        assert (said.code, said.stderr) == (0, "")
        assert "the outputs of all 4 layers are the same" in said.stdout
    assert fsd("diff", runs / "serial", runs / "ranks", "--json").json() == {
        "same": True,
        "layers": 4,
        "layer": None,
        "ranks": None,
    }


def test_a_wrong_weight_is_named_by_layer_and_rank(fsd: Fsd, runs: Path) -> None:
    said = fsd("diff", runs / "ranks", runs / "wrong")
    assert said.code == 1
    assert f"layer {FAULTY_LAYER} is the first whose outputs differ, in rank {FAULTY_RANK}" in said.stdout
    found = fsd("diff", runs / "wrong", runs / "ranks", "--json")
    assert found.code == 1
    assert found.json() == {"same": False, "layers": 4, "layer": FAULTY_LAYER, "ranks": [FAULTY_RANK]}


@pytest.mark.parametrize("other", ["serial", "replicas"])
def test_runs_that_divide_the_network_otherwise_have_no_ranks_to_name(fsd: Fsd, runs: Path, other: str) -> None:
    said = fsd("diff", runs / other, runs / "wrong")
    assert (said.code, said.stderr) == (1, "")
    assert said.stdout.rstrip().endswith(f"layer {FAULTY_LAYER} is the first whose outputs differ")


def test_rounding_of_what_is_sent_is_mentioned(fsd: Fsd, runs: Path) -> None:
    said = fsd("diff", runs / "ranks", runs / "rounded")
    assert said.code == 1
    assert "the runs sent float32 and bfloat16, and rounding what is sent changes outputs" in " ".join(
        said.stdout.split()
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ("inputs", "are runs of different inputs; compare runs of one batch"),
        ("network", "are runs of different networks; compare runs of one network"),
        ("plain", "the run was made without digests; run it again with --verify"),
        ("nowhere", "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_refused(fsd: Fsd, runs: Path, other: str, said: str) -> None:
    for pair in (("serial", other), (other, "serial")):
        refused = fsd("diff", *(runs / name for name in pair))
        assert (refused.code, refused.stdout) == (2, "")
        assert said in refused.error()


def test_an_answer_that_is_verified_is_written(fsd: Fsd, made: Path, runs: Path, tmp_path: Path) -> None:
    command = ("infer", made / "shards", made / "x.npy", "--channel", "local", "-o", tmp_path / "out.npz")
    said = fsd(*command, "--verify-against", runs / "serial")
    assert said.code == 0, said.stderr
    assert "the outputs of all 4 layers are those of" in " ".join(said.stdout.split())
    assert entries(tmp_path) == {"out.npz"}


def test_an_answer_that_differs_is_not_written(fsd: Fsd, made: Path, runs: Path, tmp_path: Path) -> None:
    command = ("infer", made / "faulty", made / "x.npy", "--channel", "local", "-o", tmp_path / "out.npz")
    reference = runs / "ranks" / "report.json"
    said = fsd(*command, "--report", tmp_path / "run", "--verify-against", reference, "--json")
    assert said.code == 1
    error = said.json()["error"]
    assert {error[name] for name in ("type", "operation")} == {"VerificationError", "verify"}
    assert (error["layer"], error["rank"], error["retryable"]) == (FAULTY_LAYER, FAULTY_RANK, False)
    assert error["message"].startswith(
        f"the answer is not that of {reference} and was not written: layer {FAULTY_LAYER}"
    )
    assert entries(tmp_path) == {"run"}
    report = RunReport.load(tmp_path / "run")
    assert report.error is not None
    assert report.error["type"] == "VerificationError"
    assert fsd("diff", tmp_path / "run", reference).code == 1


@pytest.mark.parametrize(
    ("reference", "more", "said"),
    [
        ("inputs", (), "this run and {} are runs of different inputs"),
        ("network", (), "this run and {} are runs of different networks"),
        ("plain", (), "{}: the run was made without digests"),
        ("serial", ("--report", "{}"), "verify_against and report are both"),
    ],
)
def test_what_cannot_verify_is_refused(
    fsd: Fsd, made: Path, runs: Path, tmp_path: Path, reference: str, more: tuple[str, ...], said: str
) -> None:
    path = runs / reference
    before = (path / "report.json").read_bytes()
    command = ("infer", made / "net", made / "x.npy", "-o", tmp_path / "out.npz", "--verify-against", path)
    refused = fsd(*command, *(each.format(path) for each in more))
    assert refused.code == 2
    assert said.format(path) in refused.error()
    assert entries(tmp_path) == set()
    assert (path / "report.json").read_bytes() == before


def test_files_that_are_answered_in_parts_are_not_verified(fsd: Fsd, made: Path, runs: Path, tmp_path: Path) -> None:
    refused = fsd("infer", made / "net", made / "x.npy", "-o", f"{tmp_path}/outs/", "--verify-against", runs / "serial")
    assert refused.code == 2
    assert "--verify-against compares one run: give one input file, and a file to --output" in refused.error()


def reported(plan: str | None, digests: list[list[int]], **changes: Any) -> RunReport:
    """Return a report of ranks with these digests, which add up to those of the run."""
    layers = tuple(sum(each) for each in zip(*digests, strict=True))
    ranks = [
        rank_value(rank, len(digests), len(layers)) | {"digests": [f"{each:016x}" for each in own]}
        for rank, own in enumerate(digests)
    ]
    whole = Digests("n", plan, 1, layers)
    return made_up(len(digests), len(layers), ranks=ranks, digests=whole, **changes)


def test_ranks_are_compared_under_one_plan_only() -> None:
    one = reported("p", [[1, 2], [3, 4], [5, 6]])
    assert first_difference(one, reported("q", [[3, 4], [1, 2], [5, 6]]), ("a", "b")) is None
    assert first_difference(one, reported("p", [[1, 3], [3, 4], [5, 7]]), ("a", "b")) == Difference(
        1, (0, 2), "rank", ("float32", "float32")
    )
    other = first_difference(one, reported("q", [[1, 3], [3, 4], [5, 7]]), ("a", "b"))
    assert other is not None
    assert (other.layer, other.ranks) == (1, None)
    fewer = first_difference(one, reported("q", [[9, 2], [3, 4]]), ("a", "b"))
    assert fewer is not None
    assert (fewer.layer, fewer.ranks) == (0, None)
