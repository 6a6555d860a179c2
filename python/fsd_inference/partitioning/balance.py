"""How evenly connections are shared.

A rank may own at most max(1.03 x even, even plus one row) of a layer's connections, where *even* is the layer's
connections over P and *one row* its heaviest row.
"""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Layer


def row_weights(layer: Layer) -> NDArray[np.int64]:
    """Return the connections of each row; all 1 where the layer has none, so that empty rows are shared evenly too."""
    counts = np.diff(layer.kernel_arrays().indptr)
    return counts if counts.any() else np.ones_like(counts)


def capacity(row_weight: NDArray[np.int64], workers: int) -> int:
    """Return the most weight that a rank may own."""
    total, heaviest = int(row_weight.sum()), int(row_weight.max(initial=0))
    return max(103 * total // (100 * workers), (total + workers * heaviest) // workers)


def loads(owners: NDArray[np.int32], row_weight: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """Return the weight that each rank owns."""
    return np.bincount(owners, weights=row_weight, minlength=workers).astype(np.int64)


def imbalance(load: NDArray[np.int64]) -> float:
    """Return the largest load over the even one; 1.0 for a layer without connections."""
    total = int(load.sum())
    return float(load.max()) * load.size / total if total else 1.0


def heaviest_first(weight: NDArray[np.int64], workers: int) -> NDArray[np.int32]:
    """Deal things out, the heaviest first, each to the rank that is least loaded; return their ranks."""
    load = [(0, rank) for rank in range(workers)]
    ranks = np.empty(weight.size, np.int32)
    for thing in np.argsort(-weight, kind="stable").tolist():
        lightest, rank = load[0]
        ranks[thing] = rank
        heapq.heapreplace(load, (lightest + int(weight[thing]), rank))
    return ranks
