"""Load balance: the weight of rows, the limit per rank, and the imbalance of a partition.

A rank may own at most max(1.03 x even, even + heaviest row) of the connections of a layer, where *even* is the number
of connections of the layer divided by P.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Layer


def row_weights(layer: Layer) -> NDArray[np.int64]:
    """Return the number of connections of each row, or all 1 if the layer has none, to balance empty rows too."""
    counts = np.diff(layer.kernel_arrays().indptr)
    return counts if counts.any() else np.ones_like(counts)


def capacity(row_weight: NDArray[np.int64], workers: int) -> int:
    """Return the maximum weight that a rank may own."""
    total, heaviest = int(row_weight.sum()), int(row_weight.max(initial=0))
    return max(103 * total // (100 * workers), (total + workers * heaviest) // workers)


def loads(owners: NDArray[np.int32], row_weight: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """Return the total weight of the rows of each rank."""
    return np.bincount(owners, weights=row_weight, minlength=workers).astype(np.int64)


def imbalance(load: NDArray[np.int64]) -> float:
    """Return the ratio of the largest load to the mean load; 1.0 for a layer without connections."""
    total = int(load.sum())
    return float(load.max()) * load.size / total if total else 1.0


def heaviest_first(weight: NDArray[np.int64], workers: int) -> NDArray[np.int32]:
    """Assign items greedily, heaviest first, each to the least loaded rank; return the rank of each item."""
    load = [(0, rank) for rank in range(workers)]
    ranks = np.empty(weight.size, np.int32)
    for item in np.argsort(-weight, kind="stable").tolist():
        lightest, rank = load[0]
        ranks[item] = rank
        heapq.heapreplace(load, (lightest + int(weight[item]), rank))
    return ranks
