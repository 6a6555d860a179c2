"""Calibrated pruning, beside least squares that SciPy solves, and beside pruning by magnitude."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, sparse

from fsd_inference.network import Layer, Network
from fsd_inference.network.pruning import calibration, prune
from fsd_inference.network.pruning.calibration import LeastSquares

Array = NDArray[np.float64]


def correlated(samples: int, features: int, seed: int) -> Array:
    """Return inputs of which each depends on a few common causes, as activations do."""
    rng = np.random.default_rng(seed)
    causes = np.maximum(rng.standard_normal((samples, max(2, features // 4))), 0)
    mixed = causes @ rng.standard_normal((causes.shape[1], features)) + 0.3 * rng.standard_normal((samples, features))
    return np.maximum(mixed, 0).astype(np.float32).astype(np.float64)


def perceptron(widths: tuple[int, ...], seed: int) -> Network:
    rng = np.random.default_rng(seed)
    matrices = [rng.standard_normal((n, m)) / m**0.5 for m, n in pairwise(widths)]
    return Network.from_matrices(matrices, [0.1 * rng.standard_normal(n) for n in widths[1:]])


def damping(x: Array) -> float:
    return 0.01 * float(np.square(x).sum()) / int(x.shape[1])


def solved(x: Array, target: Array, original: Array, columns: NDArray[Any]) -> Array:
    """Return the weights of some columns that fit a neuron's weighted sums, and its original weights, best."""
    ridge = damping(x) ** 0.5
    system = np.vstack([x[:, columns], ridge * np.eye(len(columns))])
    found = linalg.lstsq(system, np.concatenate([target, ridge * original[columns]]))
    return np.asarray(found[0])


def objective(problem: LeastSquares, x: Array, target: Array, original: Array) -> float:
    weights = problem.weights.toarray()
    kept = weights != 0
    return float(((x @ weights.T - target) ** 2).sum() + damping(x) * ((weights - original)[kept] ** 2).sum())


def forward(network: Network, x: Array, layers: int) -> tuple[Array, Array]:
    """Return inputs and weighted sums (without bias) of the last of some layers, in float64."""
    for layer in [network.layer(k) for k in range(layers - 1)]:
        x = np.maximum(x @ layer.weights.toarray().astype(np.float64).T + layer.bias, 0)
    return x, x @ network.layer(layers - 1).weights.toarray().astype(np.float64).T


@pytest.mark.parametrize(
    "how", [{"sparsity": 0.6}, {"sparsity": 0.8, "by": "global"}, {"by": "2:4"}], ids=["layer", "global", "2:4"]
)
def test_kept_weights_are_the_least_squares_solution(how: Any) -> None:
    network, x = perceptron((24, 20, 12, 5), 1), correlated(60, 24, 2)
    pruned = prune(network, x=x, **how)
    for layers in (1, 2, 3):
        dense_weights = network.layer(layers - 1).weights.toarray().astype(np.float64)
        _, target = forward(network, x, layers)
        inputs, _ = forward(pruned, x, layers)
        left = pruned.layer(layers - 1).weights
        for row in range(left.shape[0]):
            columns = left.indices[left.indptr[row] : left.indptr[row + 1]]
            if columns.size:
                expected = solved(inputs, target[:, row], dense_weights[row], columns)
                found = left.data[left.indptr[row] : left.indptr[row + 1]]
                np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)
        assert pruned.layer(layers - 1).bias.tobytes() == network.layer(layers - 1).bias.tobytes()


def test_the_saliency_is_what_cutting_a_connection_costs() -> None:
    network, x = perceptron((9, 3), 3), correlated(40, 9, 4)
    original = network.layer(0).weights.toarray().astype(np.float64)
    target = x @ original.T
    csr = sparse.csr_array(x)
    whole = LeastSquares(network.layer(0).weights, csr, csr)
    for entry in range(whole.weights.nnz):
        mask = np.ones(whole.weights.nnz, bool)
        mask[entry] = False
        without = LeastSquares(network.layer(0).weights, csr, csr)
        without.cut(mask)
        assert objective(without, x, target, original) == pytest.approx(whole.saliency[entry], rel=1e-6)


def test_blocks_of_inputs_converge_to_the_solution_of_all_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = perceptron((30, 8), 5), correlated(50, 30, 6)
    weights, csr = network.layer(0).weights, sparse.csr_array(x)
    mask = np.random.default_rng(7).random(weights.nnz) < 0.4
    together = LeastSquares(weights, csr, csr)
    together.cut(mask)
    monkeypatch.setattr(calibration, "BLOCK", 7)
    apart = LeastSquares(weights, csr, csr)
    apart.cut(mask)
    original, target = weights.toarray().astype(np.float64), x @ weights.toarray().astype(np.float64).T
    costs = [objective(apart, x, target, original)]
    for _ in range(300):
        apart.solve()
        costs.append(objective(apart, x, target, original))
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(costs))
    np.testing.assert_allclose(apart.weights.data, together.weights.data, rtol=1e-4, atol=1e-5)


@settings(max_examples=40)
@given(
    st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.floats(0, 1, exclude_max=True), st.integers(0, 2**32)
)
def test_counts_are_exact(inputs: int, outputs: int, samples: int, sparsity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    network = Network.from_matrices([rng.integers(-2, 3, (outputs, inputs)), rng.integers(-2, 3, (4, outputs))])
    x = rng.integers(0, 2, (samples, inputs))  # often without rank, or all zero
    for by in ("layer", "global"):
        expected = [layer.connections for layer in prune(network, sparsity, by=by)]
        assert [layer.connections for layer in prune(network, sparsity, by=by, x=x)] == expected
    for layer in prune(network, by="1:3", x=x):
        weights = layer.weights
        groups = [(row, column // 3) for row, column in zip(*weights.nonzero(), strict=True)]
        assert len(set(groups)) == len(groups)


@pytest.mark.parametrize("block", [256, 16])
@pytest.mark.parametrize("how", [{"sparsity": 0.8}, {"sparsity": 0.8, "by": "global"}, {"by": "1:4"}])
def test_outputs_stay_closer_than_by_magnitude(how: Any, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "BLOCK", block)
    network = perceptron((64, 48, 32, 8), 8)
    x, unseen = np.split(correlated(700, 64, 9), [500])
    _, expected = forward(network, unseen, 3)
    errors = []
    for sample in (None, x):
        pruned = prune(network, x=sample, **how)
        errors.append(float(np.linalg.norm(forward(pruned, unseen, 3)[1] - expected) / np.linalg.norm(expected)))
    by_magnitude, by_loss = errors
    assert by_loss < 0.6 * by_magnitude


def test_a_layer_that_is_sparse_enough_stays_but_passes_changed_values_on() -> None:
    sparse_layer = Layer(sparse.eye_array(6, dtype=np.float32), 0.5)
    rng = np.random.default_rng(10)
    ends = [Layer(rng.standard_normal((6, 6)), 0.0) for _ in range(2)]
    network, x = Network([ends[0], sparse_layer, ends[1]]), correlated(30, 6, 11)
    pruned = prune(network, 0.5, x=x)
    assert pruned.layer(1) == sparse_layer
    _, target = forward(network, x, 3)
    inputs, _ = forward(pruned, x, 3)
    left = pruned.layer(2).weights
    original = network.layer(2).weights.toarray().astype(np.float64)
    for row in range(6):
        columns = left.indices[left.indptr[row] : left.indptr[row + 1]]
        found = left.data[left.indptr[row] : left.indptr[row + 1]]
        np.testing.assert_allclose(found, solved(inputs, target[:, row], original[row], columns), rtol=1e-3, atol=1e-4)


def test_samples_may_be_sparse() -> None:
    network, x = perceptron((12, 6), 12), correlated(20, 12, 13)
    assert prune(network, 0.7, x=sparse.csr_array(x)).digest == prune(network, 0.7, x=x).digest


def test_inputs_that_are_never_active_go_first() -> None:
    x = correlated(40, 8, 14)
    x[:, [1, 5]] = 0
    left = prune(perceptron((8, 4), 15), 0.25, x=x).layer(0).weights.toarray()
    assert not left[:, [1, 5]].any()
    assert np.count_nonzero(left) == 24
