"""Dense batches and dense outputs of sessions, compared bit for bit with CSR, and with SciPy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.engine.output_forms import OutputForm
from fsd_inference.kernels import LayerKernel, SerialState, read_only
from fsd_inference.network import IDENTITY
from tests.support.runs import same

WIDTHS = [37, 64, 21, 50]
NETWORK = fsd.random_network(WIDTHS, connections=6)
KERNELS = [LayerKernel(*layer.kernel_arrays()) for layer in NETWORK]


def batch(seed: int, samples: int, density: float) -> NDArray[np.float32]:
    """Return samples of which some are all zero, and some zeros are negative."""
    rng = np.random.default_rng(seed)
    x = rng.random((samples, WIDTHS[0]), dtype=np.float32)
    x[rng.random(x.shape) >= density] = -0.0
    x[rng.random(samples) < 0.2] = 0
    return x


def from_csr(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the outputs of a CSR batch, read as CSR."""
    csr = sparse.csr_array(x)
    state = SerialState(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), csr.data, x.shape[1], 1)
    state.apply(KERNELS)
    indptr, indices, data = state.result()
    return sparse.csr_array((data, indices, indptr), shape=(len(x), WIDTHS[-1])).toarray()


def in_float64(x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the outputs as SciPy computes them."""
    values = x.T.astype(np.float64)
    for layer in NETWORK:
        values = np.maximum(layer.weights.astype(np.float64) @ values + layer.bias[:, np.newaxis], 0)
    return values.T


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 20),
    samples=st.sampled_from([1, 2, 7, 8, 31, 64, 65, 200, 1100]),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    order=st.sampled_from(["C", "F"]),
    threads=st.sampled_from([1, 2]),
)
def test_dense_and_csr_batches_have_the_same_outputs(
    seed: int, samples: int, density: float, order: Any, threads: int
) -> None:
    x = batch(seed, samples, density)
    expected = from_csr(x)
    state = SerialState.from_dense(read_only(np.array(x, order=order)), threads)
    assert (state.samples, state.neurons) == x.shape
    untouched = np.full(x.shape, np.nan, np.float32)
    state.write(untouched)
    assert untouched.tobytes() == (x + np.float32(0)).tobytes()
    state.apply(KERNELS[:1])
    state.apply(KERNELS[1:])
    found = np.full(expected.shape, np.nan, np.float32)
    state.write(found)
    assert found.tobytes() == expected.tobytes()
    np.testing.assert_allclose(found, in_float64(x), rtol=1e-5, atol=1e-6)
    assert state.non_zeros() == np.count_nonzero(expected)
    indptr, indices, data = state.result()
    assert data.all()
    assert sparse.csr_array((data, indices, indptr), shape=expected.shape).toarray().tobytes() == expected.tobytes()
    best, neuron = state.reduce()
    assert (best == expected.max(axis=1)).all()
    assert (neuron == expected.argmax(axis=1)).all()


@pytest.mark.parametrize("replicas", [1, 3])
def test_sessions_take_any_layout_and_return_what_is_asked_for(replicas: int) -> None:
    x = batch(1, 90, 0.5)
    wide = np.zeros((180, 2 * WIDTHS[0]), np.float32)
    wide[::2, ::2] = x
    expected = from_csr(x)
    with fsd.Session(NETWORK, replicas=replicas) as session:
        for given_x in (x, np.asfortranarray(x), wide[::2, ::2], x.astype(np.float64), x.astype(">f4"), x.tolist()):
            dense = session.infer(given_x, outputs="dense")
            assert isinstance(dense.outputs, np.ndarray)
            assert dense.outputs.tobytes() == expected.tobytes()
            csr = session.infer(given_x, outputs="csr")
            assert isinstance(csr.outputs, sparse.csr_array)
            assert csr.outputs.toarray().tobytes() == expected.tobytes()
            assert (dense.alive() == csr.alive()).all()
            assert dense.summary()[:2] == csr.summary()[:2]
        assert same(session.infer(sparse.csr_array(x), outputs="dense").outputs, expected)


@pytest.mark.parametrize("outputs", ["csr", "dense", None])
def test_ranks_return_what_is_asked_for(outputs: OutputForm | None) -> None:
    x = batch(5, 40, 0.5)
    expected = from_csr(x)
    with fsd.Session(NETWORK, channel="local", workers=3) as session:
        for given_x in (x, sparse.csr_array(x)):
            found = session.infer(given_x, outputs=outputs).outputs
            is_dense = given_x is x if outputs is None else outputs == "dense"
            assert isinstance(found, np.ndarray if is_dense else sparse.csr_array)
            assert same(found, expected)


PASSING = fsd.Network([fsd.Layer(sparse.eye_array(10), 0, IDENTITY)])


def ones(*counts: int) -> NDArray[np.float32]:
    """Return samples of ten features, of which some numbers are 1 and the others 0."""
    return (np.arange(10) < np.array(counts)[:, np.newaxis]).astype(np.float32)


@pytest.mark.parametrize(
    ("x", "is_dense"),
    [
        (ones(1, 1, 1, 1), False),  # exactly a tenth
        (ones(1, 1, 1, 2), True),
        (ones(0, 0, 2, 2), False),  # a tenth of the whole, but a fifth of the second replica's
        (ones(0, 0, 2, 3), True),  # none of the first replica's
        (ones(10, 10, 10, 10), True),
        (ones(0, 0, 0, 0), False),
    ],
)
@pytest.mark.parametrize("settings_", [{}, {"replicas": 2}, {"channel": "local", "workers": 2}], ids=str)
def test_outputs_of_dense_batches_are_dense_above_a_tenth(
    settings_: dict[str, Any], x: NDArray[np.float32], is_dense: bool
) -> None:
    with fsd.Session(PASSING, **settings_) as session:
        found = session.infer(x).outputs
        assert isinstance(found, np.ndarray if is_dense else sparse.csr_array)
        assert same(found, x)
        assert [type(part.outputs) for part in session.infer_parts([x, x])] == [type(found)] * 2
        assert isinstance(next(session.infer_parts([x], outputs="csr")).outputs, sparse.csr_array)
        assert isinstance(session.infer(sparse.csr_array(x)).outputs, sparse.csr_array)


@pytest.mark.parametrize("outputs", ["csr", "dense", None])
def test_the_form_is_that_of_what_the_output_function_returns(outputs: OutputForm | None) -> None:
    softmax = fsd.Network([PASSING.layer(0)], output=fsd.OutputFunction("softmax"))
    x = ones(0, 0, 0, 1)  # few scores, and all probabilities, are non-zero
    with fsd.Session(softmax) as session:
        assert isinstance(
            session.infer(x, outputs=outputs).outputs, sparse.csr_array if outputs == "csr" else np.ndarray
        )
        assert isinstance(session.infer(x, scores=True).outputs, sparse.csr_array)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("replicas", [1, 3])
def test_values_that_are_not_finite_are_named(wrong: float, replicas: int) -> None:
    x = batch(2, 60, 0.5).astype(np.float64)
    x[47, 5] = wrong
    with (
        fsd.Session(NETWORK, replicas=replicas) as session,
        pytest.raises(fsd.InputError, match=r"the input, row 47, column 5 \(from 0\) is not a finite float32"),
    ):
        session.infer(x, outputs="dense")


def test_other_forms_are_refused() -> None:
    with fsd.Session(NETWORK) as session, pytest.raises(fsd.SettingError, match="outputs must be csr or dense"):
        session.infer(batch(3, 2, 1.0), outputs="coo")  # type: ignore[arg-type]


def test_arrays_that_do_not_fit_are_refused() -> None:
    x = batch(4, 6, 1.0)
    with pytest.raises(ValueError, match="is writeable"):
        SerialState.from_dense(x, 1)
    with pytest.raises(ValueError, match="is not contiguous"):
        SerialState.from_dense(read_only(x[:, ::2]), 1)
    state = SerialState.from_dense(read_only(x), 1)
    with pytest.raises(ValueError, match="the activations are 6 x 37, the array is 37 x 6"):
        state.write(np.empty((37, 6), np.float32))
    with pytest.raises(ValueError, match="not C-contiguous"):
        state.write(np.empty((37, 6), np.float32).T)
