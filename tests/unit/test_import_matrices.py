"""Networks from matrices, in memory and in files: what becomes of them, and everything that is refused."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.io import mmread, mmwrite

import fsd_inference as fsd
from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.network import IDENTITY, RELU, Activation, Network, import_network
from tests.support.runs import dense

SIZES = ((5, 7), (4, 5), (3, 4))


def matrices(seed: int = 1) -> list[NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(size) * (random.random(size) < 0.5) for size in SIZES]


def same(network: Network, weights: list[NDArray[Any]], biases: list[Any] | None = None) -> bool:
    """Return whether a network has these weights and biases, rounded to float32, and nothing else."""
    biases = [0.0] * len(weights) if biases is None else biases
    return len(network) == len(weights) and all(
        np.array_equal(layer.weights.toarray(), matrix.astype(np.float32))
        and layer.connections == np.count_nonzero(matrix)
        and np.array_equal(layer.bias, np.array(bias, np.float32, ndmin=1))
        for layer, matrix, bias in zip(network, weights, biases, strict=True)
    )


def test_matrices_become_layers() -> None:
    weights, biases = matrices(), [np.arange(5), None, [0.1, -0.2, 0.3]]
    network = Network.from_matrices([weights[0], sparse.coo_array(weights[1]), weights[2].tolist()], biases)
    assert same(network, weights, [np.arange(5), 0.0, [0.1, -0.2, 0.3]])
    assert [layer.activation for layer in network] == [RELU, RELU, IDENTITY]
    assert (network.name, network.origin, network.labels) == ("network", None, None)


def test_the_answer_is_that_of_numpy() -> None:
    weights = [np.round(matrix * 8) for matrix in matrices()]  # so that all sums are exact
    x = np.arange(-14.0, 14.0).reshape(4, 7)
    expected = weights[2] @ np.maximum(weights[1] @ np.maximum(weights[0] @ x.T - 3, 0), 0)
    with fsd.Session(Network.from_matrices(weights, [[-3], None, None]), channel="serial") as session:
        outputs = session.infer(x).outputs
    assert np.array_equal(dense(outputs), expected.T)


@pytest.mark.parametrize(
    ("activations", "expected"),
    [
        ("relu", [RELU, RELU, RELU]),
        (Activation("clipped_relu", 2), [Activation("clipped_relu", 2)] * 3),
        (["identity", RELU, "relu"], [IDENTITY, RELU, RELU]),
    ],
)
def test_activations_are_one_for_all_or_one_each(activations: Any, expected: list[Activation]) -> None:
    network = Network.from_matrices(matrices(), activations=activations)
    assert [layer.activation for layer in network] == expected


def with_value(matrix: NDArray[Any], row: int, column: int, value: float) -> NDArray[Any]:
    changed = matrix.copy()
    changed[row, column] = value
    return changed


FIRST, SECOND, THIRD = matrices()
MIXED: Any = ["a", 1, True, 2.0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Network.from_matrices([]), "at least one matrix"),
        (lambda: Network.from_matrices(None), "must be a list with one entry per layer"),  # type: ignore[arg-type]
        (lambda: Network.from_matrices(sparse.csr_array(FIRST)), "must be a list with one entry per layer"),
        (lambda: Network.from_matrices(FIRST), "layer 0: a layer's weights must be 2-D"),
        (lambda: Network.from_matrices([FIRST], [0, 0]), "2 biases are given for 1 layers"),
        (lambda: Network.from_matrices([FIRST], [[1, 2]]), "layer 0: a layer of 5 neurons needs 5 biases or one"),
        (lambda: Network.from_matrices([FIRST], activations="cosine"), "softplus, not 'cosine'"),  # type: ignore[arg-type]
        (lambda: Network.from_matrices([FIRST], activations=5), "must be an Activation"),  # type: ignore[arg-type]
        (lambda: Network.from_matrices([FIRST], activations=["relu"] * 2), "2 activations are given for 1 layers"),
        (lambda: Network.from_matrices([FIRST * 1j]), "layer 0: a layer's weights must be real"),
        (
            lambda: Network.from_matrices([FIRST, THIRD]),
            "layer 1 (3 x 4) takes 4 inputs, but the layer before it, layer 0 (5 x 7), has 5 outputs",
        ),
        (
            lambda: Network.from_matrices([FIRST.T, SECOND.T, THIRD.T]),
            "transposed, all would fit: rows must be outputs, columns inputs",
        ),
        (
            lambda: Network.from_matrices([FIRST, with_value(SECOND, 3, 2, np.nan)]),
            "layer 1: the weight of output 3 and input 2 (counted from 0) is NaN, infinite or too large for float32",
        ),
        (
            lambda: Network.from_matrices([sparse.csc_array(with_value(FIRST, 1, 6, 1e39))]),
            "layer 0: the weight of output 1 and input 6 (counted from 0)",
        ),
        (
            lambda: Network.from_matrices([FIRST], [[0, 1, -np.inf, np.nan, 0]]),
            "layer 0: the bias of output 2 (counted from 0)",
        ),
        (lambda: Network.from_matrices([FIRST], labels=["a", "b"]), "one for each of its 5 outputs"),
        (lambda: Network.from_matrices([SECOND], labels=MIXED), "must all be strings, finite numbers or booleans"),
        (lambda: Network.from_matrices([SECOND], labels=[1, 2, 3, np.inf]), "must all be strings, finite numbers or"),
        (lambda: Network.from_matrices([SECOND], labels=[1j, 2j, 3j, 4j]), "must all be strings, finite numbers or"),
    ],
)
def test_what_is_no_network_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_all_problems_are_listed() -> None:
    with pytest.raises(InputError, match=r"^3 problems: layer 0: .*; layer 2: .*; layer 1 \(3 x 4\) takes") as caught:
        Network.from_matrices([with_value(FIRST, 0, 0, np.inf), THIRD, np.full((2, 3), np.nan)])
    assert str(caught.value).count("NaN") == 2
    with pytest.raises(InputError, match=r"^30 problems: .*; and 20 more$"):
        Network.from_matrices([[[np.nan]]] * 30)


def save(folder: Path, number: int, matrix: NDArray[Any], form: str) -> Path:
    file = folder / f"layer-{number}{form}"
    if form == ".npy":
        np.save(file, matrix)
    elif form == ".npz":
        sparse.save_npz(file, sparse.csc_array(matrix))
    else:
        mmwrite(folder / "text.mtx", sparse.coo_array(matrix), precision=17)
        text = (folder / "text.mtx").read_bytes()
        (folder / "text.mtx").unlink()
        file.write_bytes(gzip.compress(text) if form.endswith(".gz") else text)
    return file


@pytest.mark.parametrize("form", [".npy", ".npz", ".mtx", ".mtx.gz"])
@pytest.mark.parametrize("transpose", [False, True])
def test_a_folder_of_matrices(tmp_path: Path, form: str, transpose: bool) -> None:
    weights = matrices()
    for k, matrix in enumerate(weights):
        save(tmp_path, k, matrix.T if transpose else matrix, form)
    np.save(tmp_path / "layer-1.bias.npy", np.arange(4))
    (tmp_path / "README.md").write_text("about")
    np.save(tmp_path / "inputs.npy", np.ones((2, 7)))
    network = import_network(tmp_path, transpose=transpose)
    assert same(network, weights, [0.0, np.arange(4), 0.0])
    assert network.origin == f"matrices in {tmp_path.name}"
    assert [layer.activation for layer in network] == [RELU, RELU, IDENTITY]


def test_numbers_decide_on_the_order(tmp_path: Path) -> None:
    weights = [np.eye(2) * k for k in range(1, 12)]
    files = [save(tmp_path, k, matrix, ".npy") for k, matrix in enumerate(weights, 1)]
    assert same(import_network(sorted(files)), weights)  # where layer-10 comes before layer-2
    assert same(import_network(tmp_path), weights)
    assert same(import_network([str(tmp_path / "layer-1.npy")]), weights[:1])


def test_stored_zeros_and_duplicates_are_treated_as_in_a_layer(tmp_path: Path) -> None:
    stored = sparse.coo_array(([1.0, 2.0, 0.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    sparse.save_npz(tmp_path / "layer-1.npz", stored)
    lines = "%%MatrixMarket matrix coordinate real general\n2 2 3\n1 2 1\n1 2 2\n2 1 0\n"
    (tmp_path / "layer-2.mtx").write_text(lines)
    np.save(tmp_path / "layer-3.npy", np.array([[0, 3], [0, 0]]))
    network = import_network(tmp_path)
    assert [layer.connections for layer in network] == [2, 2, 1]
    assert all(layer.weights.toarray().tolist() == [[0, 3], [0, 0]] for layer in network)


@pytest.mark.parametrize(
    ("header", "lines", "expected"),
    [
        ("coordinate pattern general", "2 2 2\n1 2\n2 1\n", [[0, 1], [1, 0]]),
        ("coordinate integer symmetric", "2 2 2\n1 1 5\n2 1 -3\n", [[5, -3], [-3, 0]]),
        ("coordinate real skew-symmetric", "2 2 1\n2 1 1.5\n", [[0, -1.5], [1.5, 0]]),
        ("array real general", "2 2\n1\n0\n3\n4", [[1, 3], [0, 4]]),
        ("array real symmetric", "2 2\n1\n2\n3", [[1, 2], [2, 3]]),
        ("array integer skew-symmetric", "3 3\n1\n2\n3\n", [[0, -1, -2], [1, 0, -3], [2, 3, 0]]),
        ("coordinate real general", "% a comment\n1 3 0\n", [[0, 0, 0]]),
    ],
)
def test_the_kinds_of_matrix_market(tmp_path: Path, header: str, lines: str, expected: list[list[float]]) -> None:
    file = tmp_path / "layer-1.mtx"
    file.write_text(f"%%MatrixMarket matrix {header}\n{lines}")
    read = mmread(file)
    assert (read.toarray() if sparse.issparse(read) else read).tolist() == expected
    assert import_network(tmp_path).layer(0).weights.toarray().tolist() == expected


HEAD = b"%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("layer-1.mtx", b"", "layer-1.mtx, line 1: '' is not a header such as '%%MatrixMarket matrix"),
        ("layer-1.mtx", HEAD.replace(b"matrix", b"vector"), "line 1: '%%MatrixMarket vector coordinate real general'"),
        (
            "layer-1.mtx",
            HEAD.replace(b"coordinate real", b"array pattern"),
            "line 1: an array cannot be a pattern",
        ),
        ("layer-1.mtx", HEAD.replace(b"real", b"complex") + b"1 1 1\n1 1 1 1\n", "complex"),
        ("layer-1.mtx", HEAD + b"% about\n\n2 2\n", "line 4: '2 2' is not the number of rows, columns and entries"),
        ("layer-1.mtx", HEAD + b"2 -2 1\n", "line 2: '2 -2 1' is not the number of rows, columns and entries"),
        ("layer-1.mtx", HEAD + b"9 9 9999999999999999999\n", "has 0 entries, but its header says 9999999999999999999"),
        ("layer-1.mtx", HEAD, "line 2: '' is not the number of rows, columns and entries"),
        (
            "layer-1.mtx",
            HEAD.replace(b"general", b"symmetric") + b"2 3 0\n",
            "line 2: a symmetric matrix cannot be 2 x 3",
        ),
        ("layer-1.mtx", HEAD + b"2 2 2\n1 1 1\n3 1 1\n", "line 4: row 3 is not a whole number in 1 to 2"),
        ("layer-1.mtx", HEAD + b"2 2 1\n1 0 1\n", "line 3: column 0 is not a whole number in 1 to 2"),
        ("layer-1.mtx", HEAD + b"2 2 1\n1.5 1 1\n", "line 3: row 1.5 is not a whole number"),
        (
            "layer-1.mtx",
            HEAD.replace(b"general", b"symmetric") + b"2 2 1\n1 2 1\n",
            "line 3: the symmetry in the header implies",
        ),
        (
            "layer-1.mtx",
            HEAD.replace(b"general", b"skew-symmetric") + b"2 2 1\n1 1 1\n",
            "line 3: the symmetry in the header implies",
        ),
        ("layer-1.mtx", HEAD + b"2 2 1\n\n% about\n1 1 x\n", "line 5: '1 1 x' is not row, column, value"),
        ("layer-1.mtx", HEAD + b"2 2 1\n1 1\n", "line 3: '1 1' is not row, column, value"),
        ("layer-1.mtx", HEAD + b"2 2 3\n1 1 1\n1 1 1\n", "layer-1.mtx has 2 entries, but its header says 3"),
        ("layer-1.mtx", HEAD + b"9 9 99999999999\n", "layer-1.mtx has 0 entries, but its header says 99999999999"),
        ("layer-1.mtx", HEAD + b"2 2 1\n2 1 nan\n", "line 3: value nan is not a finite float32 number"),
        ("layer-1.mtx", HEAD + b"2000000000 9 1\n1 1 1\n", "has 2000000000 rows or columns, but only 1 weights"),
        (
            "layer-1.mtx.gz",
            gzip.compress(HEAD + b"2 2 1\n1 1 1\n", mtime=0)[:-12],
            "layer-1.mtx.gz is truncated or damaged",
        ),
        ("layer-1.npy", b"\x93NUMPY", "layer-1.npy: not an"),
        ("layer-1.npz", b"PK\x03\x04", "layer-1.npz is damaged"),
        ("layer-1.bias.npy", b"", "the weights of its layer are missing"),
        ("layer_1.npy", b"", "looks like a layer but is not named like layer-1.npz"),
        ("layer-1b.npz", b"", "looks like a layer but is not named like layer-1.npz"),
        ("layer-1.mtx.bz2", b"", "looks like a layer but is not named like layer-1.npz"),
        ("layer-2.npy", b"", "the layers with these numbers are missing: 1"),
        ("layer-999999999.npy", b"", "the layers with these numbers are missing: 1"),
        ("net.npz", b"", "has no files named like layer-1.npz"),
        (".layer-1.npz", b"", "has no files named like layer-1.npz"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(says)) as caught:
        list(import_network(tmp_path))
    assert "\n" not in str(caught.value)


def test_archives_of_other_arrays_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "layer-1.npz", np.ones((2, 2)))
    with pytest.raises(FileFormatError, match="does not hold a sparse array but 'arr_0'"):
        import_network(tmp_path)
    np.savez(tmp_path / "layer-1.npz", shape=np.array([2, 2]), other=np.ones(3))
    with pytest.raises(FileFormatError, match="does not hold a sparse array but 'shape', 'other'"):
        import_network(tmp_path).layer(0)
    np.savez(tmp_path / "layer-1.npz", shape=np.array([2, 2, 2]))
    with pytest.raises(FileFormatError, match="holds a 3-D array; weights are 2-D"):
        import_network(tmp_path)


def test_all_problems_of_a_folder_are_listed_before_a_layer_is_read(tmp_path: Path) -> None:
    save(tmp_path, 1, FIRST, ".npy")
    save(tmp_path, 2, THIRD, ".npz")
    (tmp_path / "layer-3.npy").write_bytes(b"")
    np.save(tmp_path / "layer-1.bias.npy", np.ones(4))
    np.save(tmp_path / "layer-2.bias.npy", np.ones((2, 2)))
    with pytest.raises(FileFormatError, match=r"^4 problems: ") as caught:
        import_network(tmp_path)
    for says in (
        "layer-1.bias.npy has 4 entries, but",
        "layer-2.bias.npy holds a 2-D array",
        "layer-3.npy: not an .npy array",
        "layer-2.npz (3 x 4) takes 4 inputs, but",
    ):
        assert says in str(caught.value)


def test_all_problems_of_values_are_listed_with_the_first_layer_that_has_one(tmp_path: Path) -> None:
    save(tmp_path, 0, FIRST, ".npy")
    save(tmp_path, 1, with_value(SECOND, 2, 1, np.nan).T.T, ".npz")
    save(tmp_path, 2, with_value(THIRD, 0, 3, -np.inf), ".mtx")
    network = import_network(tmp_path)
    assert network.layer(0).shape == (5, 7)
    with pytest.raises(InputError, match=r"^2 problems: \S*layer-1.npz: the weight of output 2 and input 1 .*layer-2"):
        network.save(tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_places_are_outputs_and_inputs_of_transposed_files_too(tmp_path: Path) -> None:
    save(tmp_path, 1, with_value(FIRST, 3, 6, np.nan).T, ".npz")
    with pytest.raises(InputError, match="output 3 and input 6"):
        import_network(tmp_path, transpose=True).layer(0)


def test_files_of_the_other_orientation_are_recognized(tmp_path: Path) -> None:
    for k, matrix in enumerate(matrices()):
        save(tmp_path, k, matrix.T, ".npy")
    with pytest.raises(FileFormatError, match="transposed, all would fit: if rows are inputs, add --transpose"):
        import_network(tmp_path)


def test_the_same_layer_twice_is_refused(tmp_path: Path) -> None:
    for form in (".npy", ".npz"):
        save(tmp_path, 1, FIRST, form)
    with pytest.raises(FileFormatError, match=r"layer-1.npy and \S*layer-1.npz are the same layer; keep one"):
        import_network(tmp_path)


@pytest.mark.parametrize("setting", [{"layers": ["fc1"]}, {"bias": 0.5}])
def test_settings_of_other_sources_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    save(tmp_path, 1, FIRST, ".npy")
    with pytest.raises(
        SettingError, match=rf"{next(iter(setting))} cannot be set for .* which is a folder of matrices"
    ):
        import_network(tmp_path, **setting)


def test_files_are_given_by_their_names(tmp_path: Path) -> None:
    files = [save(tmp_path, 1, FIRST, ".npy").rename(tmp_path / "fc1.npy"), tmp_path / "fc2.npy"]
    with pytest.raises(
        FileFormatError, match=r"^2 problems: \S*fc1.npy must be named like .*fc2.npy must be named like"
    ):
        import_network(files)
    with pytest.raises(InputError, match="at least one file of weights"):
        import_network([])


def test_origin_and_labels_are_stored_with_the_network(tmp_path: Path) -> None:
    save(tmp_path, 1, SECOND, ".npy")
    import_network(tmp_path).save(tmp_path / "net")
    assert Network.load(tmp_path / "net").origin == f"matrices in {tmp_path.name}"
    for labels in (["a", "b", "ü", ""], [3, 1, 2, 2**40], [True, False, True, True], [0.5, 1.5, 2.5, -1.0]):
        network = Network.from_matrices([SECOND], labels=labels)
        network.save(tmp_path / "net")
        loaded = Network.load(tmp_path / "net")
        assert loaded.labels is not None
        assert loaded.labels.tolist() == labels
        assert loaded.digest == network.digest
        assert not loaded.labels.flags.writeable


@pytest.mark.parametrize(
    ("field", "value"),
    [("labels", '["a"]'), ("labels", '["a", 1, "b", "c"]'), ("labels", '"abcd"'), ("origin", "5")],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, field: str, value: str) -> None:
    Network.from_matrices([SECOND]).save(tmp_path / "net")
    manifest = tmp_path / "net" / "network.json"
    manifest.write_text(manifest.read_text().replace('"version": 2', f'"version": 2, "{field}": {value}'))
    with pytest.raises(FileFormatError, match=f"the field '{field}' is missing or invalid"):
        Network.load(tmp_path / "net")
