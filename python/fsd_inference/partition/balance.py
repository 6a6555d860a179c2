"""How evenly connections are shared, and repairing what a partitioner left uneven.

A rank may own at most max(1.03 x even, even plus one row) of a layer's connections, where *even* is the layer's
connections over P and *one row* its heaviest row.
"""

from __future__ import annotations

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


def repair(
    owners: NDArray[np.int32],
    row_weight: NDArray[np.int64],
    workers: int,
    cost: NDArray[np.int64] | None = None,
) -> NDArray[np.int32]:
    """Move rows off overloaded ranks until every rank is within `capacity`.

    Parameters
    ----------
    owners : ndarray of int32
        Owner of each row.
    row_weight : ndarray of int64
        Weight of each row.
    workers : int
        P.
    cost : ndarray of int64, shape (rows, workers), optional
        What a row costs with each rank (smaller is better); decides which rows move, and where.

    Returns
    -------
    ndarray of int32
        `owners` itself where nothing had to move, else a copy.
    """
    limit = capacity(row_weight, workers)
    load = loads(owners, row_weight, workers)
    if load.max() <= limit:
        return owners
    owners = owners.copy()
    for rank in np.flatnonzero(load > limit):
        mine = np.flatnonzero((owners == rank) & (row_weight > 0))
        # The least loaded rank always has room for any row (it is at most even), so this ends.
        while load[rank] > limit:
            fits = load[None, :] + row_weight[mine, None] <= limit
            if cost is None:
                target = int(load.argmin())
                position = int(np.flatnonzero(fits[:, target])[-1])
            else:
                loss = np.where(fits, cost[mine] - cost[mine, rank][:, None], np.iinfo(np.int64).max)
                position, target = (int(i) for i in np.unravel_index(loss.argmin(), loss.shape))
            row = mine[position]
            owners[row] = target
            load[rank] -= row_weight[row]
            load[target] += row_weight[row]
            mine = np.delete(mine, position)
    return owners
