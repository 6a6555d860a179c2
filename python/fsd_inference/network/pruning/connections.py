"""The connections of a layer that pruning may remove, and the layer that is left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.activation import IDENTITY
from fsd_inference.network.checks import as_float32
from fsd_inference.network.layer import Layer, index_dtype


@dataclass(frozen=True, slots=True)
class Prunable:
    """The rows of a layer that can be pruned.

    Attributes
    ----------
    rows : ndarray of int64, ascending
        Their numbers. Rows that only carry a value on, unchanged, and maxima are not among them.
    weights : csr_array of float32, shape (rows, n_in)
        Their connections.
    """

    rows: NDArray[np.int64]
    weights: sparse.csr_array

    @classmethod
    def of(cls, layer: Layer) -> Prunable:
        """Return the prunable rows of a layer."""
        weights = layer.weights
        rows = np.flatnonzero(~_fixed(layer, weights))
        return cls(rows, weights if rows.size == weights.shape[0] else weights[rows])

    @property
    def positions(self) -> int:
        """Number of connections that these rows would have if they were dense."""
        return self.rows.size * int(self.weights.shape[1])

    @property
    def magnitudes(self) -> NDArray[np.float32]:
        """Absolute values of the weights, shape (connections,)."""
        magnitudes: NDArray[np.float32] = np.abs(self.weights.data)
        return magnitudes


def kept_only(weights: sparse.csr_array, mask: NDArray[np.bool_]) -> sparse.csr_array:
    """Return the entries of a CSR array that a mask over its values keeps; the rows stay."""
    indptr = np.concatenate([[0], np.cumsum(mask)])[weights.indptr].astype(weights.indptr.dtype)
    return sparse.csr_array((weights.data[mask], weights.indices[mask], indptr), shape=weights.shape)


def with_weights(layer: Layer, rows: NDArray[np.int64], weights: sparse.csr_array) -> Layer:
    """Return a layer with other weights in some rows; bias and activations stay.

    Parameters
    ----------
    layer : Layer
    rows : ndarray of int64, ascending
    weights : csr_array of float, shape (rows, n_in)
        Rounded to float32; stored zeros remain connections.
    """
    outputs, inputs = layer.shape
    others = np.setdiff1d(np.arange(outputs), rows, assume_unique=True)
    if others.size:
        order = np.argsort(np.concatenate([rows, others]))
        weights = sparse.vstack([weights, layer.weights[others]], format="csr")[order]
    return Layer.from_arrays(
        weights.indptr.astype(np.int64),
        weights.indices.astype(index_dtype(inputs)),
        as_float32(weights.data),
        inputs,
        bias=layer.bias,
        activation=layer.groups,
        slopes=layer.slopes,
    )


def _fixed(layer: Layer, weights: sparse.csr_array) -> NDArray[np.bool_]:
    """Return which rows have the output of one input, unchanged, or the largest of their inputs."""
    single = np.diff(weights.indptr) == 1
    carried = single & (layer.bias == 0)
    carried[single] &= weights.data[weights.indptr[:-1][single]] == 1
    rows = [group.rows for group in layer.groups]
    is_maximum = np.repeat([group.reduce == "max" for group in layer.groups], rows)
    is_identity = np.repeat([group.activation == IDENTITY for group in layer.groups], rows)
    fixed: NDArray[np.bool_] = is_maximum | (is_identity & carried)
    return fixed
