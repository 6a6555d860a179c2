"""The `random` partitioner: neurons are assigned to ranks at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.partitioning.balance import row_weights
from fsd_inference.partitioning.block import runs


def partition_owners(network: Network, workers: int, seed: int) -> tuple[NDArray[np.int32], ...]:
    """Return the owner of each neuron: one range of the shuffled neurons per layer and rank."""
    random = np.random.default_rng(seed)
    owners = []
    for layer in network:
        order = random.permutation(layer.shape[0])
        shuffled = np.empty(order.size, np.int32)
        shuffled[order] = runs(row_weights(layer)[order], workers)
        owners.append(shuffled)
    return tuple(owners)
