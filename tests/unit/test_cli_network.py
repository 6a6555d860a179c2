"""`fsd network`, `fsd dataset` and `fsd partition`, end to end on small sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy import sparse

from fsd_inference.network import Activation, Layer, Network, digits, graph_challenge, random_network
from fsd_inference.partitioning import exchange_plan, load_plan, share_rows, volumes
from tests.support.cli import Fsd, entries, fsd_in


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


def test_generate_radixnet_writes_the_official_network(fsd: Fsd, tmp_path: Path) -> None:
    said = fsd("network", "generate", "radixnet", "--neurons", 1024, "--layers", 7, "-o", tmp_path / "net", "--json")
    expected = graph_challenge(1024, 7)
    assert (said.code, said.stderr) == (0, "")
    assert said.json()["digest"] == Network.load(tmp_path / "net").digest.hex() == expected.digest.hex()
    assert said.json()["connections"] == 7 * 1024 * 32
    assert said.json()["bytes"] == sum(file.stat().st_size for file in (tmp_path / "net").iterdir())


@pytest.mark.parametrize(
    ("flags", "widths", "connections", "seed"),
    [
        ("--neurons 40 --layers 3 --connections 5 --seed 7", (40, 40, 40, 40), 5, 7),
        ("--widths 40,30,20", (40, 30, 20), 32, 0),
        ("--widths 40,30,20 --layers 4", (40, 30, 20, 40, 30), 32, 0),
        ("--widths 40,30,20 --layers 2 --neurons 40", (40, 30, 20), 32, 0),
    ],
)
def test_generate_random(
    fsd: Fsd, tmp_path: Path, flags: str, widths: tuple[int, ...], connections: int, seed: int
) -> None:
    said = fsd("network", "generate", "random", *flags.split(), "-o", tmp_path / "net", "--json")
    assert said.json()["widths"] == list(widths)
    assert said.json()["digest"] == random_network(widths, connections, seed=seed).digest.hex()


def test_generate_replaces_a_network(fsd: Fsd, tmp_path: Path) -> None:
    for layers in (2, 3):
        assert (
            fsd("network", "generate", "random", "--neurons", 9, "--layers", layers, "-o", tmp_path / "net").code == 0
        )
    assert len(Network.load(tmp_path / "net")) == 3
    assert entries(tmp_path) == {"net"}


def test_import_reads_the_graph_challenge_files(fsd: Fsd, tmp_path: Path) -> None:
    expected = graph_challenge(1024, 3)
    folder = tmp_path / "neuron1024"
    folder.mkdir()
    for k, layer in enumerate(expected, 1):
        found = layer.weights.tocoo()
        lines = (f"{i + 1}\t{o + 1}\t{w}\n" for o, i, w in zip(found.row, found.col, found.data, strict=True))
        (folder / f"n1024-l{k}.tsv").write_text("".join(lines))
    said = fsd("network", "import", folder, "-o", tmp_path / "net", "--json")
    assert said.json()["digest"] == expected.digest.hex()


def test_a_broken_import_leaves_nothing(fsd: Fsd, tmp_path: Path) -> None:
    folder = tmp_path / "neuron1024"
    folder.mkdir()
    (folder / "n1024-l1.tsv").write_text("1\t1\t0.0625\n")
    (folder / "n1024-l2.tsv").write_text("1\t1\tnan\n")
    said = fsd("network", "import", folder, "-o", tmp_path / "net")
    assert said.code == 2
    assert "n1024-l2.tsv, line 1: weight nan" in said.error()
    assert entries(tmp_path) == {"neuron1024"}


def test_import_reads_matrices(fsd: Fsd, tmp_path: Path) -> None:
    first, second = np.eye(3, 4), np.ones((2, 3))
    for k, matrix in enumerate((first, second), 1):
        np.save(tmp_path / f"layer-{k}.npy", matrix.T)
    files = sorted(tmp_path.glob("layer-*.npy"))
    expected = Network.from_matrices([first, second], activations=[Activation("clipped_relu", 6), "identity"])
    flags = ("--transpose", "--activation", "clipped_relu:6,identity", "-o", tmp_path / "net", "--json")
    for source in ([tmp_path], files):
        said = fsd("network", "import", *source, *flags)
        assert (said.code, said.stderr) == (0, "")
        assert said.json()["digest"] == expected.digest.hex()
        assert said.json()["origin"] == f"matrices in {tmp_path.name}"
        assert said.json()["labels"] is None
    same = fsd("network", "import", *files, "-o", tmp_path / "other", "--transpose", "--activation", "relu", "--json")
    assert same.json()["digest"] == Network.from_matrices([first, second], activations="relu").digest.hex()


def test_import_reads_safetensors_once_the_layers_are_named(fsd: Fsd, tmp_path: Path) -> None:
    weights = {"fc2.weight": np.ones((2, 3), np.float32), "fc1.weight": np.eye(3, 4, dtype=np.float32)}
    save_file(weights | {"fc1.bias": np.arange(3, dtype=np.float32)}, tmp_path / "model.safetensors")
    command = ("network", "import", tmp_path / "model.safetensors", "-o", tmp_path / "net")
    refused = fsd(*command)
    assert refused.code == 2
    assert "such as --layers fc1,fc2, whose widths match" in refused.error()
    assert entries(tmp_path) == {"model.safetensors"}
    said = fsd(*command, "--layers", "fc1,fc2")
    assert "safetensors model.safetensors, layers fc1, fc2" in said.stdout
    expected = Network.from_matrices([weights["fc1.weight"], weights["fc2.weight"]], [np.arange(3), None])
    assert Network.load(tmp_path / "net").digest == expected.digest


def test_info_shows_labels(fsd: Fsd, tmp_path: Path) -> None:
    Network.from_matrices([np.eye(3)], labels=["cat", "dog", "eel"]).save(tmp_path / "net")
    assert "cat, dog, eel" in fsd("network", "info", tmp_path / "net").stdout
    assert fsd("network", "info", tmp_path / "net", "--json").json()["labels"] == ["cat", "dog", "eel"]


def test_info_tells_and_checks(fsd: Fsd, tmp_path: Path) -> None:
    graph_challenge(1024, 2).save(tmp_path / "net")
    said = fsd("network", "info", tmp_path / "net", "--json").json()
    assert said["widths"] == [1024, 1024, 1024]
    assert said["activations"] == {"clipped_relu:32": 2}
    assert (said["one_value_layers"], said["zero_preserving_layers"]) == (2, 2)
    plain = fsd("network", "info", tmp_path / "net")
    assert "65,536" in plain.stdout
    assert plain.stderr == ""
    file = tmp_path / "net" / "layers-00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    damaged = fsd("network", "info", tmp_path / "net")
    assert damaged.code == 2
    assert "layers-00000.safetensors" in damaged.error()


def test_digits(fsd: Fsd, tmp_path: Path) -> None:
    said = fsd("dataset", "digits", "--neurons", 256, "--samples", 30, "-o", tmp_path / "x.npz", "--json")
    saved = sparse.load_npz(tmp_path / "x.npz")
    expected = digits(256, 30)
    assert np.array_equal(saved.toarray(), expected.toarray())
    assert said.json() == {
        "path": str(tmp_path / "x.npz"),
        "samples": 30,
        "features": 256,
        "ones": expected.nnz,
        "bytes": (tmp_path / "x.npz").stat().st_size,
    }
    assert "30 samples" in fsd("dataset", "digits", "--neurons", 256, "--samples", 30, "-o", tmp_path / "x.npz").stdout


@pytest.mark.parametrize("method", ["block", "random", "graph", "hypergraph"])
def test_partition(fsd: Fsd, tmp_path: Path, method: str) -> None:
    network = random_network((60, 50, 40, 30), 6, seed=1)
    network.save(tmp_path / "net")
    said = fsd("partition", tmp_path / "net", "--workers", 3, "--method", method, "-o", tmp_path / "cut", "--json")
    assert said.code == 0, said.stderr
    cut, plan = load_plan(tmp_path / "cut")
    expected = volumes(network, cut, share_rows(exchange_plan(network, cut)), 0.0)
    record = said.json()
    assert record["row_sends"] == expected.row_sends
    assert record["imbalance"] == expected.imbalance
    assert record["seconds"] > 0
    assert record["largest_sender"] == list(expected.largest_sender)
    assert record["largest_receiver"] == list(expected.largest_receiver)
    assert (record["method"], record["workers"], plan.workers) == (method, 3, 3)


def test_partition_shows_people_the_busiest_exchanges(fsd: Fsd, tmp_path: Path) -> None:
    random_network((30,) * 13, 4, seed=2).save(tmp_path / "net")
    said = fsd("partition", tmp_path / "net", "--workers", 4, "--method", "block", "-o", tmp_path / "cut")
    assert "8 busiest of 11 exchanges" in " ".join(said.stdout.split())
    alone = fsd("partition", tmp_path / "net", "--workers", 1, "--method", "block", "-o", tmp_path / "cut")
    assert "0 over 11 exchanges" in alone.stdout


def test_partition_takes_no_directory_of_something_else(fsd: Fsd, tmp_path: Path) -> None:
    random_network((9, 9), 4).save(tmp_path / "net")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "letters").write_text("dear")
    said = fsd("partition", tmp_path / "net", "--workers", 2, "--method", "block", "-o", tmp_path / "cut")
    assert said.code == 2
    assert "cut" in said.error()
    assert entries(tmp_path / "cut") == {"letters"}
    assert entries(tmp_path) == {"net", "cut"}


def test_names_are_printed_as_they_are(tmp_path: Path, fsd: Fsd) -> None:
    Network([Layer([[1]], 0, Activation("clip", -1, 1))]).save(tmp_path / "a:smile:b")
    said = fsd("network", "info", tmp_path / "a:smile:b").stdout
    assert "clip:-1:1 (1 layers)" in said
    assert "a:smile:b" in said
