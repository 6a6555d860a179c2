"""Import of the Graph Challenge's TSV folders."""

import gzip
import re
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


WRITTEN = b"1\t2\t0.5\n3\t2\t-1e-1\n3\t1\t2\n"


@pytest.mark.parametrize(
    "content",
    [
        WRITTEN.replace(b"\t", b" "),
        WRITTEN.replace(b"\t", b"  \t").replace(b"\n", b" \r\n"),
        WRITTEN.replace(b"3\t", b"3.0\t").replace(b"2\t", b"20e-1\t"),
        b"\xef\xbb\xbf" + WRITTEN.rstrip() + b"\n\n \n",
    ],
)
def test_layers_of_other_tools_are_understood(folder: Path, content: bytes) -> None:
    expected = graph_challenge_folder(folder, bias=0).layer(0)
    (folder / "n3-l1.tsv").write_bytes(content)
    assert graph_challenge_folder(folder, bias=0).layer(0) == expected
    (folder / "n3-l1.tsv").unlink()
    (folder / "n3-l1.tsv.gz").write_bytes(gzip.compress(content))
    assert graph_challenge_folder(folder, bias=0).layer(0) == expected


def test_a_truncated_gzip_is_refused(folder: Path) -> None:
    (folder / "n3-l2.tsv").unlink()
    (folder / "n3-l2.tsv.gz").write_bytes(gzip.compress(WRITTEN)[:-5])
    with pytest.raises(FileFormatError, match=r"n3-l2\.tsv\.gz is truncated or damaged"):
        graph_challenge_folder(folder, bias=0).layer(1)


def test_a_folder_is_found_from_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    network = graph_challenge_folder(folder.name, bias=0)
    monkeypatch.chdir("/")
    assert network.layer(1).connections == 1


@pytest.mark.parametrize(
    "name",
    [
        "n3-l0.tsv",
        "n3-l02.tsv",
        "n03-l3.tsv",
        "n3-l2.TSV",
        "N3-L3.tsv",
        "n3-l3.tsv.xz",
        "n3-l3.tsv.bz2",
        "n3-l3.tsv.zip",
        "n3-l3.tsv.GZ",
        "n3-l3.tsv.part",
        "n3-l3.gz",
        "n3-l3.txt",
        "n3-l3.csv",
        "n3-l3",
        "n3-l-3.tsv",
        "n3-l3.5.tsv",
        "n3-l3b.tsv",
        "n3_l3.tsv",
        "n3l3.tsv",
        "n3 - l3.tsv",
        "n3-layer3.tsv",
        "neuron3-l3.tsv",
        "layer3.tsv",
        "l3.tsv",
        "3-l3.tsv",
        " n3-l3.tsv",
        "n3-l3.tsv ",
        "n3-l3 (1).tsv",
        "n3-l3 - copy.tsv",
        "Copy of n3-l3.tsv",
        "n3-l3.tsv.1",
        "n3-l3.tsv~",
        "#n3-l3.tsv#",
        "n3-l٣.tsv",
        "n3-l12345678901.tsv",
    ],
)
def test_what_looks_like_a_layer_is_not_passed_over(folder: Path, name: str) -> None:
    (folder / name).write_text("1\t1\t1\n")
    with pytest.raises(
        FileFormatError, match=re.escape(f"{folder / name} looks like a layer but is not named like n1024-l1")
    ):
        graph_challenge_folder(folder, bias=0)


@pytest.mark.parametrize(
    "name",
    [
        "neuron3-l2-categories.tsv",
        "n3-l2-categories.tsv",
        "sparse-images-3.tsv",
        "sparse-images-3.tsv.gz",
        "README.md",
        "LICENSE-2.txt",
        "n3-l2-out.npz",
        "labels2.tsv",
        "log1.txt",
        "neuron3.tar.gz",
        "n3.tsv",
        ".n3-l3.tsv.swp",
        "._n3-l3.tsv",
        "n3-l3/",
    ],
)
def test_files_for_other_purposes_are_passed_over(folder: Path, name: str) -> None:
    (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("")
    assert len(graph_challenge_folder(folder, bias=0)) == 2


def test_a_size_that_is_not_official_needs_a_bias(folder: Path) -> None:
    with pytest.raises(InputError, match="not an official size"):
        graph_challenge_folder(folder)
    for wrong, says in ((float("nan"), "finite"), (1e99, "finite"), ("a", "real numbers"), ([1, 2], "one number")):
        with pytest.raises(InputError, match=f"the bias (must be|is not) .*{says}"):
            graph_challenge_folder(folder, bias=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("1\t2\n", r"line 1: '1\\t2' is not input, output and weight"),
        ("1\t2\t3\t4\n", "line 1: .* is not input, output and weight"),
        ("1\t2\t3\n1\t2\n", "line 2: .* is not input, output and weight"),
        ("1.5\t2\t3\n", "line 1: input 1.5 is not a whole number in 1 to 3"),
        ("a\tb\tc\n", "line 1: .* is not input, output and weight"),
        ("1\t1\t1\n\0\xff", "line 2: .* is not input, output and weight"),
        ("1\t2\t3\n0\t2\t3\n", "line 2: input 0 is not a whole number in 1 to 3"),
        ("1\t4\t3\n", "line 1: output 4 is not a whole number in 1 to 3"),
        ("1\t2\tnan\n", "line 1: weight nan is not a finite"),
        ("1\t1\t1\n\r\n1\t2\t1e99\n", "line 3: weight 1e99 is not a finite float32"),
        ("1\t2\t3\n2\t1\t3\n\n1\t2\t3\n1\t2\t3\n", "line 4: input 1 and output 2 occur for the second time"),
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
        (lambda folder: (folder / "n3-l1.tsv").unlink(), "n3-l1.tsv is missing"),
        (lambda folder: (folder / "n3-l4.tsv").write_text("1\t1\t1\n"), "n3-l3.tsv is missing"),
        (lambda folder: (folder / "n4-l1.tsv").write_text("1\t1\t1\n"), "of 3 and of 4 neurons"),
        (
            lambda folder: (folder / "n3-l1.tsv.gz").write_bytes(b""),
            "has both n3-l1.tsv and n3-l1.tsv.gz; keep one of them",
        ),
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
