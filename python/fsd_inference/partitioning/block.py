"""The `block` partitioner: each rank owns one range of consecutive neurons per layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.partitioning.balance import row_weights


def runs(row_weight: NDArray[np.int64], workers: int) -> NDArray[np.int32]:
    """Split rows into one range of nearly equal weight per rank; return the rank of each row.

    The rank of a row follows from the midpoint of its weight in the cumulative sum of all weights, so a rank exceeds
    the even share by at most half of its first and half of its last row.
    """
    middle = 2 * np.cumsum(row_weight) - row_weight
    ranks: NDArray[np.int64] = middle * workers // (2 * int(row_weight.sum()))
    return np.minimum(ranks, workers - 1).astype(np.int32)


def partition_owners(network: Network, workers: int, _seed: int) -> tuple[NDArray[np.int32], ...]:
    """Return the owner of each neuron: one range of consecutive neurons per layer and rank."""
    return tuple(runs(row_weights(layer), workers) for layer in network)
