"""The Graph Challenge's TSV folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network import Network, graph_challenge, graph_challenge_folder


def write_folder(network: Network, folder: Path) -> Path:
    """Write a network the way it is published: inputs, outputs, weights, counted from 1."""
    folder.mkdir()
    neurons = network.widths[0]
    for k, layer in enumerate(network, 1):
        published = layer.weights.T.tocoo()
        lines = zip(published.row + 1, published.col + 1, published.data, strict=True)
        text = "".join(f"{row}\t{column}\t{weight}\n" for row, column, weight in lines)
        (folder / f"n{neurons}-l{k}.tsv").write_text(text)
    (folder / "neuron-categories.tsv").write_text("1\n")  # other files are passed over
    return folder


def test_the_official_network_comes_back(tmp_path: Path) -> None:
    network = graph_challenge(1024, 7)  # the seventh is the first that is permuted
    read = graph_challenge_folder(write_folder(network, tmp_path / "tsv"))
    assert read.digest == network.digest
    assert read.connections == network.connections
    assert len(read) == 7
    read.save(tmp_path / "n")
    assert Network.load(tmp_path / "n").digest == network.digest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "n3-l1.tsv").write_text("1\t2\t0.5\n3\t2\t-1e-1\n3\t1\t2\n")
    (tmp_path / "n3-l2.tsv").write_text("1\t1\t1\n")
    return tmp_path


def test_lines_are_inputs_outputs_and_weights(folder: Path) -> None:
    network = graph_challenge_folder(folder, bias=-0.25)
    first = network.layer(0)
    assert first.weights.toarray().tolist() == [[0, 0, 2], [0.5, 0, np.float32(-0.1)], [0, 0, 0]]
    assert first.bias.tolist() == [-0.25]
    assert network.connections == 4


def test_a_size_that_is_not_official_needs_a_bias(folder: Path) -> None:
    with pytest.raises(InputError, match="no official size"):
        graph_challenge_folder(folder)
    with pytest.raises(InputError, match="finite"):
        graph_challenge_folder(folder, bias=float("nan"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("1\t2\n", "a line that is not"),
        ("1\t2\t3\t4\n", "a line that is not"),
        ("1\t2\t3\n1\t2\n", "a line that is not"),
        ("1 2 3\n", "a line that is not"),
        ("1.5\t2\t3\n", "a line that is not"),
        ("a\tb\tc\n", "a line that is not"),
        ("1\t1\t1\n\0\xff", "a line that is not"),
        ("1\t2\t3\n0\t2\t3\n", "connection 2: input 0 is not in 1 to 3"),
        ("1\t4\t3\n", "connection 1: output 4 is not in 1 to 3"),
        ("1\t2\tnan\n", "connection 1: weight nan"),
        ("1\t2\t1e99\n", "finite float32"),
        ("1\t2\t3\n1\t2\t3\n", "repeats a connection"),
    ],
)
def test_wrong_lines_are_refused_and_named(folder: Path, content: str, says: str) -> None:
    (folder / "n3-l2.tsv").write_text(content, encoding="latin-1")
    network = graph_challenge_folder(folder, bias=0)
    network.layer(0)
    with pytest.raises(FileFormatError, match=says) as caught:
        network.layer(1)
    assert "n3-l2.tsv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / "n3-l1.tsv").unlink(), "n3-l1.tsv is not"),
        (lambda folder: (folder / "n3-l4.tsv").write_text("1\t1\t1\n"), "n3-l3.tsv is not"),
        (lambda folder: (folder / "n4-l1.tsv").write_text("1\t1\t1\n"), "of 3 and of 4 neurons"),
        (lambda folder: [file.unlink() for file in folder.iterdir()], "no files named like"),
    ],
)
def test_wrong_folders_are_refused(folder: Path, change: Callable[[Path], object], says: str) -> None:
    change(folder)
    with pytest.raises(FileFormatError, match=says):
        graph_challenge_folder(folder, bias=0)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        graph_challenge_folder(tmp_path / "absent")
