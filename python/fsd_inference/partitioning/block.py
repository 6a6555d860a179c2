"""`block`: consecutive neurons stay together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.partitioning.balance import row_weights


def runs(row_weight: NDArray[np.int64], workers: int) -> NDArray[np.int32]:
    """Cut rows into runs of nearly equal weight, one a rank.

    A row goes where its middle falls on the line of all weights laid end to end, so a rank exceeds the even share by
    at most half its first and half its last row.
    """
    middle = 2 * np.cumsum(row_weight) - row_weight
    ranks: NDArray[np.int64] = middle * workers // (2 * int(row_weight.sum()))
    return np.minimum(ranks, workers - 1).astype(np.int32)


def partition_owners(network: Network, workers: int, _seed: int) -> tuple[NDArray[np.int32], ...]:
    """Give each rank one run of consecutive neurons of each layer."""
    return tuple(runs(row_weights(layer), workers) for layer in network)
