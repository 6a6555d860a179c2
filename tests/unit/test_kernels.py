"""Layers and serial runs of the extension: exact rounding, and agreement with SciPy in double precision."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.kernels import LayerKernel, NonFiniteError, SerialState, simd_path, simd_paths

Floats = NDArray[np.float32]
Kind = Literal["identity", "relu", "clipped_relu"]
PATHS = ("portable", "avx2", "avx512", "neon")


def frozen(values: Any, dtype: Any) -> NDArray[Any]:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def kernel(
    weights: sparse.csr_array,
    bias: Any,
    kind: Kind = "relu",
    clip: float = 1.0,
    *,
    keeps_zeros: bool = False,
    index: Any = np.uint16,
    one: bool = False,
) -> LayerKernel:
    values = weights.data[:1] if one else weights.data
    return LayerKernel(
        frozen(weights.indptr, np.int64),
        frozen(weights.indices, index),
        frozen(values, np.float32),
        weights.shape[1],
        frozen(bias, np.float32),
        [(weights.shape[0], "sum", kind, [clip] if kind == "clipped_relu" else [])],
        frozen([], np.float32),
        keeps_zeros,
    )


def state(x: Floats, threads: int = 1) -> SerialState:
    batch = sparse.csr_array(x)
    return SerialState(batch.indptr.astype(np.int64), batch.indices.astype(np.int32), batch.data, x.shape[1], threads)


def outputs(serial: SerialState, shape: tuple[int, int]) -> Floats:
    indptr, indices, data = serial.result()
    dense: Floats = sparse.csr_array((data, indices, indptr), shape=shape).toarray()
    return dense


def fma(w: np.float32, x: Floats, acc: Floats) -> Floats:
    """Round w * x + acc once to float32: in double precision to odd, which a second rounding cannot spoil."""
    product, addend = np.float64(w) * x.astype(np.float64), acc.astype(np.float64)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    even = (total.view(np.int64) & 1) == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return odd.astype(np.float32)


def exact(x: Floats, weights: sparse.csr_array, bias: Floats, kind: Kind, clip: float) -> Floats:
    """Compute a layer term by term in ascending column order."""
    result = np.empty((x.shape[0], weights.shape[0]), np.float32)
    for row in range(weights.shape[0]):
        acc = np.zeros(x.shape[0], np.float32)
        for at in range(weights.indptr[row], weights.indptr[row + 1]):
            acc = fma(weights.data[at], x[:, weights.indices[at]], acc)
        z = acc + bias[row % bias.size]
        high = np.float32(clip) if kind == "clipped_relu" else np.float32(np.inf)
        result[:, row] = z if kind == "identity" else np.minimum(np.maximum(z, 0), high)
    return result


def draw_network(seed: int) -> tuple[Floats, list[tuple[sparse.csr_array, Floats, Kind, bool]]]:
    """Draw a batch and layers of any widths, with biases of both signs, some of them keeping zeros."""
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 50, size=rng.integers(2, 8))
    x = rng.normal(size=(rng.integers(0, 150), widths[0])).astype(np.float32)
    x *= rng.random(x.shape) < rng.choice([0.0, 0.05, 0.5, 1.0])
    x[rng.random(x.shape[0]) < 0.3] = 0
    layers: list[tuple[sparse.csr_array, Floats, Kind, bool]] = []
    for columns, rows in itertools.pairwise(widths):
        dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.4)
        bias = rng.normal(size=rows if rng.random() < 0.5 else 1).astype(np.float32)
        kind: Kind = rng.choice(np.array(["identity", "relu", "clipped_relu"]))
        keeps = bool(rng.random() < 0.7) and kind != "identity"
        layers.append((sparse.csr_array(dense.astype(np.float32)), -abs(bias) if keeps else bias, kind, keeps))
    return x, layers


def run(seed: int, threads: int) -> tuple[Floats, Floats]:
    """Return what the kernels give and what they must give."""
    x, layers = draw_network(seed)
    serial = state(x, threads)
    serial.apply([kernel(w, b, kind, keeps_zeros=keeps) for w, b, kind, keeps in layers])
    expected = x
    for weights, bias, kind, _ in layers:
        expected = exact(expected, weights, bias, kind, 1.0)
    return outputs(serial, expected.shape), expected + np.float32(0)


@given(seed=st.integers(0, 2**32), threads=st.integers(1, 3))
def test_networks_round_exactly_as_promised(seed: int, threads: int) -> None:
    found, expected = run(seed, threads)
    assert found.tobytes() == expected.tobytes()


FORKS = """
import os, signal, numpy as np
from tests.unit.test_kernels import run
found, expected = run(seed=3, threads=2)
child = os.fork()
if child == 0:
    signal.alarm(30)  # a child that waits for threads which it does not have is ended
    found, expected = run(seed=4, threads=2)
    os._exit(int(not np.array_equal(found, expected)))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_forked_after_a_batch_has_threads_of_its_own() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "0\n"


@given(seed=st.integers(0, 2**32), samples=st.integers(1, 4), threads=st.integers(1, 2))
def test_repeated_batches_of_a_few_samples_round_exactly_as_promised(seed: int, samples: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(1, 40), rng.integers(1, 160)
    dense = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < rng.choice([0.02, 0.1, 0.4, 1.0]))
    one = bool(rng.random() < 0.3) and bool(dense.any())
    weights = sparse.csr_array((np.where(dense, 0.75, 0) if one else dense).astype(np.float32))
    bias, x = (rng.normal(size=size).astype(np.float32) for size in (rows, (samples, columns)))
    layer = kernel(weights, bias, one=one)
    expected = exact(x, weights, bias, "relu", 1.0) + np.float32(0)
    for _ in range(12):  # after several such batches a layer changes its layout
        serial = state(x, threads)
        serial.apply([layer])
        assert outputs(serial, expected.shape).tobytes() == expected.tobytes()


@given(seed=st.integers(0, 2**32))
def test_a_layer_is_close_to_scipy_in_double_precision(seed: int) -> None:
    x, layers = draw_network(seed)
    weights, bias, _, _ = layers[0]
    serial = state(x)
    serial.apply([kernel(weights, bias, "identity")])
    double = weights.astype(np.float64)
    z = (double @ x.T.astype(np.float64)).T + bias.astype(np.float64)
    # Each of at most 50 roundings errs by half a unit in the last place of a partial sum.
    size = (abs(double) @ abs(x.T.astype(np.float64))).T + abs(bias.astype(np.float64))
    assert np.all(abs(outputs(serial, z.shape) - z) <= 51 * 2.0**-24 * size + 1e-40)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_gives_the_same_bits(path: str) -> None:
    if path not in simd_paths():
        pytest.skip(f"this processor does not support the kernel path {path}, so its bits were NOT compared")
    seeds = range(40)
    code = (
        "import hashlib\nfrom fsd_inference.kernels import simd_path\nfrom tests.unit.test_kernels import run\n"
        f"print(simd_path(), hashlib.sha256(b''.join(run(s, 1 + s % 2)[0].tobytes() for s in {seeds!r})).hexdigest())"
    )
    env = {**os.environ, "FSD_KERNEL": path, "PYTHONPATH": os.pathsep.join(["python", ".", *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    expected = hashlib.sha256(b"".join(run(seed, 1)[1].tobytes() for seed in seeds)).hexdigest()
    assert done.stdout.split() == [path, expected]


@pytest.mark.parametrize("name", ["sse", *(path for path in PATHS if path not in simd_paths())])
def test_a_path_that_cannot_be_taken_is_an_error(name: str) -> None:
    code = "from fsd_inference.kernels import simd_path; simd_path()"
    env = {**os.environ, "FSD_KERNEL": name, "PYTHONPATH": os.pathsep.join(["python", *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ValueError: FSD_KERNEL" in done.stderr
    assert name in done.stderr


def test_the_path_in_use_is_one_that_can_be_taken() -> None:
    assert simd_path() in simd_paths()
    assert "portable" in simd_paths()


EYE = sparse.csr_array(np.eye(3, dtype=np.float32))


def test_one_value_layers_and_wide_indices_are_only_ways_to_store() -> None:
    rng = np.random.default_rng(1)
    weights = sparse.csr_array((rng.random((20, 30)) < 0.3).astype(np.float32) / 16)
    x = rng.random((70, 30)).astype(np.float32)
    results = []
    for one in (False, True):
        for index in (np.uint16, np.uint32):
            serial = state(x)
            serial.apply([kernel(weights, [-0.1], index=index, one=one)])
            results.append(outputs(serial, (70, 20)).tobytes())
    assert len(set(results)) == 1


def test_ties_go_to_the_lowest_neuron_and_dropped_samples_are_zero() -> None:
    x = np.array([[1, 5, 5], [0, 0, 0], [-1, -2, -3]], np.float32)
    serial = state(x)
    serial.apply([kernel(EYE, [0.0], "relu", keeps_zeros=True)])
    best, neuron = serial.reduce()
    assert best.tolist() == [5, 0, 0]
    assert neuron.tolist() == [1, 0, 0]


def test_a_value_that_is_not_finite_names_layer_and_row_and_changes_nothing() -> None:
    huge = kernel(sparse.csr_array(np.diag(np.array([1, 3e38, 3e38], np.float32))), [0.0], "clipped_relu")
    serial = state(np.array([[1, 1, 2], [1, 2, 1]], np.float32))
    serial.apply([kernel(EYE, [0.0])])
    before = serial.result()
    with pytest.raises(NonFiniteError) as raised:
        serial.apply([kernel(EYE, [0.0]), huge])
    message, layer, row = raised.value.args
    assert (layer, row) == (2, 1)
    assert message == "layer 2: row 1 is not finite"
    for old, new in zip(before, serial.result(), strict=True):
        np.testing.assert_array_equal(old, new)


def arguments(**changes: Any) -> list[Any]:
    """Return the arguments of a good layer, some of them changed."""
    good: dict[str, Any] = {
        "indptr": frozen([0, 2, 3], np.int64),
        "indices": frozen([0, 2, 1], np.uint16),
        "values": frozen([1, 2, 3], np.float32),
        "columns": 3,
        "bias": frozen([0, -1], np.float32),
        "groups": [(2, "sum", "relu", [])],
        "slopes": frozen([], np.float32),
        "zero_preserving": True,
    }
    return list({**good, **changes}.values())


def test_a_good_layer_says_its_size() -> None:
    layer = LayerKernel(*arguments())
    assert (layer.rows, layer.columns, layer.connections) == (2, 3, 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"indptr": frozen([], np.int64)}, "indptr is empty"),
        ({"indptr": frozen([1, 2, 3], np.int64)}, "indptr runs from 1"),
        ({"indptr": frozen([0, 2, 4], np.int64)}, "to 4"),
        ({"indptr": frozen([0, 4, 3], np.int64)}, "indptr falls at row 1"),
        ({"indptr": np.array([0, 2, 3], np.int64)}, "indptr is writeable"),
        ({"indptr": frozen([0, 9, 2, 9, 3], np.int64)[::2]}, "not contiguous"),
        ({"indices": frozen([2, 0, 1], np.uint16)}, "row 0 must ascend"),
        ({"indices": frozen([0, 0, 1], np.uint32)}, "row 0 must ascend"),
        ({"indices": frozen([0, 2, 3], np.uint16)}, "row 1 has column index 3"),
        ({"values": frozen([1, 2], np.float32)}, "2 values for 3 connections"),
        ({"values": frozen([1, np.nan, 2], np.float32)}, "value 1 is NaN"),
        ({"bias": frozen([1, 2, 3], np.float32)}, "3 biases for 2 rows"),
        ({"bias": frozen([0, np.inf], np.float32)}, "bias 1 is inf"),
        ({"bias": frozen([-1, 0.5], np.float32)}, "said to keep zeros"),
        ({"groups": [(2, "sum", "cosine", [])]}, 'no activation "cosine"'),
        ({"groups": [(2, "sum", "clipped_relu", [0.0])]}, "with parameters"),
        ({"groups": [(2, "sum", "clipped_relu", [float("nan")])]}, "with parameters"),
        ({"groups": [(2, "sum", "elu", [float("inf")])]}, "must be finite"),
        ({"groups": [(2, "mean", "relu", [])]}, 'not "mean"'),
        ({"groups": [(1, "sum", "relu", [])]}, "do not add up to 2 rows"),
        ({"groups": [(2**63, "sum", "relu", []), (2**63 + 2, "sum", "relu", [])]}, "do not add up to 2 rows"),
        ({"groups": [(2, "max", "relu", [])]}, "all of weight 1"),
        ({"groups": [(2, "sum", "prelu", [])]}, "0 slopes for 2 rows"),
        ({"slopes": frozen([1], np.float32)}, "1 slopes for 2 rows"),
        ({"slopes": frozen([1, np.nan], np.float32)}, "slope 1 is NaN"),
        ({"groups": [(2, "sum", "sigmoid", [])]}, "said to keep zeros"),
    ],
)
def test_a_bad_layer_says_what_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LayerKernel(*arguments(**changes))


@pytest.mark.parametrize(
    ("indptr", "indices", "data", "features", "threads", "words"),
    [
        ([0, 1], [3], [1.0], 3, 1, "feature 3"),
        ([0, 1], [-1], [1.0], 3, 1, "feature -1"),
        ([0, 2], [1, 1], [1.0, 2.0], 3, 1, "sample 0 must ascend"),
        ([0, 2], [1], [1.0], 3, 1, "indptr runs from 0 to 2"),
        ([0, 1], [1], [1.0, 2.0], 3, 1, "2 values for 1 indices"),
        ([0, 1], [1], [np.inf], 3, 1, "input value 0 is inf"),
        ([0, 1], [1], [1.0], 3, 0, "at least one"),
    ],
)
def test_a_bad_batch_says_what_is_wrong(
    indptr: list[int], indices: list[int], data: list[float], features: int, threads: int, words: str
) -> None:
    arrays = np.array(indptr, np.int64), np.array(indices, np.int32), np.array(data, np.float32)
    with pytest.raises(ValueError, match=words):
        SerialState(*arrays, features, threads)


def test_layers_that_do_not_follow_each_other_are_refused() -> None:
    serial = state(np.ones((1, 3), np.float32))
    narrow = kernel(sparse.csr_array(np.ones((1, 2), np.float32)), [0.0])
    with pytest.raises(ValueError, match="layer 1 has 2 columns for 3 inputs"):
        serial.apply([kernel(EYE, [0.0]), narrow])
