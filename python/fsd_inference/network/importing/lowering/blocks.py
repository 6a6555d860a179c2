"""Blocks of neurons that operators become: sparse rows over references to the scalars that they read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.activation import IDENTITY, Activation

Refs: TypeAlias = NDArray[np.int64]

_INDICES = 1 << 16


@dataclass(frozen=True, slots=True)
class Block:
    """Neurons that compute activation(reduce of matrix * sources, + bias).

    Attributes
    ----------
    refs : ndarray of int64, shape (rows,)
        References to the neurons, ascending.
    matrix : csr_array of float32 or float64, shape (rows, columns)
        The weights; those of a "max" block are 1.
    sources : ndarray of int64, shape (columns,)
        What the columns refer to, ascending.
    bias : ndarray of float64, shape (rows,)
        The biases.
    nodes : tuple of str
        The operators that it computes, for messages.
    activation : Activation
        The activation of all rows.
    slopes : ndarray of float64, shape (rows,), optional
        The slopes of prelu.
    reduce : {"sum", "max"}
        How the products of a row are combined.
    """

    refs: Refs
    matrix: sparse.csr_array
    sources: Refs
    bias: NDArray[np.float64]
    nodes: tuple[str, ...]
    activation: Activation = IDENTITY
    slopes: NDArray[np.float64] | None = None
    reduce: Literal["sum", "max"] = "sum"

    @property
    def is_affine(self) -> bool:
        """Whether the neurons are weighted sums without an activation."""
        return self.reduce == "sum" and self.activation == IDENTITY

    @property
    def is_selection(self) -> bool:
        """Whether each row is the activation of one scalar, unchanged."""
        return bool((np.diff(self.matrix.indptr) == 1).all() and (self.matrix.data == 1).all() and not self.bias.any())

    def connections_of_rows(self) -> NDArray[Any]:
        """Return the number of connections of each row."""
        counts: NDArray[Any] = np.diff(self.matrix.indptr)
        return counts

    def readers(self) -> NDArray[np.int64]:
        """Return the number of rows that read each source."""
        return np.bincount(self.matrix.indices, minlength=self.sources.size)

    def rows(self, chosen: NDArray[Any]) -> Block:
        """Return the block of some rows, given as a mask or as indices, without sources that these do not read."""
        block = self
        if not np.array_equal(np.arange(self.refs.size)[chosen], np.arange(self.refs.size)):
            block = replace(
                self,
                refs=self.refs[chosen],
                matrix=sparse.csr_array(self.matrix[chosen]),
                bias=self.bias[chosen],
                slopes=None if self.slopes is None else self.slopes[chosen],
            )
        read = np.zeros(self.sources.size, bool)
        for start in range(0, block.matrix.indices.size, _INDICES):  # of dense rows, the first few read all sources
            read[block.matrix.indices[start : start + _INDICES]] = True
            if read.all():
                return block
        matrix = _with_columns(block.matrix, (np.cumsum(read) - 1)[block.matrix.indices], int(read.sum()))
        return replace(block, matrix=matrix, sources=self.sources[read])


def over_sources(matrix: sparse.csr_array, refs: Refs) -> tuple[sparse.csr_array, Refs]:
    """Return a matrix and the references of its columns, made distinct and ascending; entries of one scalar are added.

    Parameters
    ----------
    matrix : csr_array, shape (rows, columns)
        The weights; entries of 0 are dropped.
    refs : ndarray of int64, shape (columns,)
        What the columns refer to.
    """
    if (refs[1:] > refs[:-1]).all():
        sources = refs
    else:
        sources, columns = np.unique(refs, return_inverse=True)
        matrix = _with_columns(matrix, columns.ravel()[matrix.indices], sources.size)
        matrix.sum_duplicates()
    if not matrix.data.all():
        matrix = matrix.copy()  # it can be a caller's
        matrix.eliminate_zeros()
    return matrix, sources


def regular(columns: NDArray[Any], data: NDArray[Any] | float, width: int) -> sparse.csr_array:
    """Return a matrix with the same number of entries in each row.

    Parameters
    ----------
    columns : ndarray of int, shape (rows, entries)
        The columns of the entries.
    data : ndarray or float
        The weights, broadcast to that shape.
    width : int
        Number of columns.
    """
    rows, entries = columns.shape
    values = np.broadcast_to(np.asarray(data, np.float64), columns.shape)
    return sparse.csr_array((values.ravel(), columns.ravel(), np.arange(rows + 1) * entries), shape=(rows, width))


def _with_columns(matrix: sparse.csr_array, columns: NDArray[Any], width: int) -> sparse.csr_array:
    return sparse.csr_array((matrix.data, columns, matrix.indptr), shape=(matrix.shape[0], width), copy=True)
