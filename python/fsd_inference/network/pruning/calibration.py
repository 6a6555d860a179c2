"""Pruning of a layer by what its outputs lose on a sample of inputs, with the kept weights adjusted to make up for it.

The weights of a neuron are a linear least-squares problem: the neuron, fed by the pruned layers before it, should have
the weighted sum that it has in the dense network. With the inputs X (samples x n_in) and the damping d, the Hessian of
that problem is H = X'X + d I. Cutting weight j costs w_j^2 / [H^-1]_jj if all others adjust (Hassibi and Stork, "Second
order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992). As the costs of the others change with each
cut, connections are cut in rounds, and the kept weights of a row are solved anew in each.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from fsd_inference.network.pruning.connections import kept_only
from fsd_inference.network.pruning.rules import Rule

Array = NDArray[np.float64]

BLOCK = 256
"""Inputs whose weights are solved together. Wider layers are solved block by block, each block making up also for what
the blocks before it lost: H then needs BLOCK x n_in numbers, and time is proportional to the number of weights."""
_ROUNDS = 6
_DAMPING = 0.01  # relative to the mean diagonal of X'X


class LeastSquares:
    """The connections of a layer, and the weighted sums that they should have.

    Minimizes |X W' - T|^2 + damping |W - W0|^2 over the weights W of the connections that are left, where T are the
    weighted sums of the dense network's inputs with the original weights W0.

    Parameters
    ----------
    weights : csr_array, shape (n_out, n_in)
        The original weights W0.
    x : csr_array, samples x n_in
        The layer's inputs in the pruned network.
    dense_x : csr_array, samples x n_in
        The layer's inputs in the dense network; the same object if no layer before was changed.
    """

    def __init__(self, weights: sparse.csr_array, x: sparse.csr_array, dense_x: sparse.csr_array) -> None:
        self.original = weights.astype(np.float64)
        self.weights = self.original.copy()
        self._blocks = [slice(start, start + BLOCK) for start in range(0, weights.shape[1], BLOCK)]
        self._x = x.astype(np.float64).tocsc()
        damping = _DAMPING * self._x.power(2).sum() / weights.shape[1] or 1.0
        self._damping = float(damping)
        self._hessians = [self._hessian(block) for block in self._blocks]
        precision = np.concatenate([1 / np.diagonal(linalg.inv(hessian)) for hessian in self._hessians])
        # Without the part of the damping, which an input that is never active would have as well.
        self._precision = np.maximum(precision - self._damping, 0)
        self._missing = np.zeros((x.shape[0], weights.shape[0]))  # T - X W'
        if dense_x is not x:
            changed = (dense_x - x).astype(np.float64).tocsc()
            for block in self._blocks:
                self._missing += _sums(changed[:, block], self.original[:, block])
            self.solve()

    @property
    def saliency(self) -> Array:
        """How far the weighted sums move without each connection if the others of its block adjust, (connections,)."""
        found: Array = self.weights.data**2 * self._precision[self.weights.indices]
        return found

    def cut(self, mask: NDArray[np.bool_]) -> None:
        """Keep only the connections in `mask`, and adjust their weights."""
        cut = kept_only(self.weights, ~mask)
        for block in self._blocks:
            self._missing += _sums(self._x[:, block], cut[:, block])
        self.weights, self.original = kept_only(self.weights, mask), kept_only(self.original, mask)
        self.solve()

    def solve(self) -> None:
        """Solve the weights of each block of inputs, given those of the other blocks."""
        for block, hessian in zip(self._blocks, self._hessians, strict=True):
            entries = np.flatnonzero((self.weights.indices >= block.start) & (self.weights.indices < block.stop))
            starts = np.searchsorted(entries, self.weights.indptr)
            columns = self.weights.indices[entries] - block.start
            gradient = (self._missing.T @ self._x[:, block].toarray())[_rows_of(starts), columns]
            gradient += self._damping * (self.original.data[entries] - self.weights.data[entries])
            change = _solved(hessian, gradient, columns, starts)
            self.weights.data[entries] += change
            shape = self.weights.shape[0], len(hessian)
            self._missing -= _sums(self._x[:, block], sparse.csr_array((change, columns, starts), shape=shape))

    def _hessian(self, block: slice) -> Array:
        x = self._x[:, block].toarray()
        found: Array = x.T @ x
        found[np.diag_indices_from(found)] += self._damping
        return found


def calibrated(
    weights: sparse.csr_array, rule: Rule, x: sparse.csr_array, dense_x: sparse.csr_array
) -> sparse.csr_array:
    """Prune weights by a rule; return those that are left, adjusted, as float64. Parameters as for `LeastSquares`."""
    problem = LeastSquares(weights, x, dense_x)
    for step in rule.steps(weights.nnz, _ROUNDS):
        problem.cut(step.keep(problem.saliency, problem.weights))
    return problem.weights


def _sums(x: sparse.csc_array, weights: sparse.csr_array) -> Array:
    """Return weighted sums, samples x n_out."""
    sums: Array = (weights @ x.toarray().T).T
    return sums


def _rows_of(starts: NDArray[Any]) -> NDArray[np.int64]:
    return np.repeat(np.arange(starts.size - 1), np.diff(starts))


def _solved(hessian: Array, gradient: Array, columns: NDArray[Any], starts: NDArray[Any]) -> Array:
    """Solve each row's system; rows with the same columns share a factorization."""
    alike: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, (start, stop) in enumerate(pairwise(starts)):
        if start < stop:
            alike[columns[start:stop].tobytes()].append(row)
    change = np.zeros_like(gradient)
    for rows in alike.values():
        first = columns[starts[rows[0]] : starts[rows[0] + 1]]
        entries = starts[rows][:, np.newaxis] + np.arange(first.size)
        system = hessian.take(first, 0).take(first, 1).T  # symmetric; in LAPACK's order, so that it is not copied
        factor = linalg.cho_factor(system, lower=True, overwrite_a=True, check_finite=False)
        change[entries] = linalg.cho_solve(factor, gradient[entries].T, check_finite=False).T
    return change
