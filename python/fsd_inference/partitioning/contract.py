"""Lossless contraction of a layer: rows with equal columns form a group, columns with equal rows form a class.

Rows with the same columns need the same inputs, so keeping them together costs nothing and makes the problem of the
partitioners smaller: 16 times for Graph Challenge networks, not at all for random ones. Equality is decided by 64-bit
hashes; a collision could only reduce quality, because cost and balance are computed on the layer itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Layer
from fsd_inference.partitioning.balance import row_weights


@dataclass(frozen=True, slots=True, eq=False)
class Contracted:
    """A layer contracted to groups of rows and classes of columns.

    Attributes
    ----------
    group : ndarray of int64, shape (n_out,)
        The group of each row, 0..groups-1.
    group_weight : ndarray of int64, shape (groups,)
        Total weight of the rows of each group (see `balance.row_weights`).
    column_class : ndarray of int64, shape (n_in,)
        The class of each column, 0..classes-1.
    class_pointer, class_groups : ndarray of int64
        The groups connected to class c: class_groups[class_pointer[c] : class_pointer[c + 1]], ascending.
    """

    group: NDArray[np.int64]
    group_weight: NDArray[np.int64]
    column_class: NDArray[np.int64]
    class_pointer: NDArray[np.int64]
    class_groups: NDArray[np.int64]

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.group_weight.size

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.class_pointer.size - 1


def contract(layer: Layer) -> Contracted:
    """Contract a layer to groups and classes."""
    indptr, indices, *_ = layer.kernel_arrays()
    columns = layer.shape[1]
    _, first, group = np.unique(
        _segment_sums(_hashes(columns)[indices], indptr), return_index=True, return_inverse=True
    )
    # One row represents its group, which yields unique (group, column) pairs.
    counts = np.diff(indptr)[first]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    picked = np.arange(starts[-1]) + np.repeat(indptr[first] - starts[:-1], counts)
    by_column = np.argsort(indices[picked], kind="stable")
    groups = np.repeat(np.arange(first.size), counts)[by_column]
    pointer = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(indices[picked], minlength=columns))])
    _, first_column, column_class = np.unique(
        _segment_sums(_hashes(first.size)[groups], pointer), return_index=True, return_inverse=True
    )
    class_pointer, class_groups = select(pointer, groups, first_column)
    return Contracted(
        group,
        np.bincount(group, weights=row_weights(layer)).astype(np.int64),
        column_class,
        class_pointer,
        class_groups,
    )


def select(
    pointer: NDArray[np.int64], values: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pointer and the values of the chosen segments, in the order of `chosen`."""
    counts = np.diff(pointer)[chosen]
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return ends, values[np.arange(ends[-1]) + np.repeat(pointer[chosen] - ends[:-1], counts)]


def _hashes(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(count).integers(0, 2**64, count, np.uint64)


def _segment_sums(values: NDArray[np.uint64], pointer: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the sum of each segment modulo 2^64; sums of hashes identify sets."""
    sums: NDArray[np.uint64] = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return sums[pointer[1:]] - sums[pointer[:-1]]
