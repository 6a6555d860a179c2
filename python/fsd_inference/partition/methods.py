"""The partitioners by name."""

from __future__ import annotations

from fsd_inference.errors import SettingError
from fsd_inference.network import Network
from fsd_inference.partition.block import block_owners
from fsd_inference.partition.graph import graph_owners
from fsd_inference.partition.hypergraph import hypergraph_owners
from fsd_inference.partition.plan import Partition
from fsd_inference.partition.shuffled import random_owners

METHODS = ("block", "random", "graph", "hypergraph")


def partition_network(network: Network, workers: int, method: str = "hypergraph", seed: int = 0) -> Partition:
    """Decide which rank owns which neuron.

    Parameters
    ----------
    network : Network
        Its layers are asked for one by one, possibly several times.
    workers : int
        P; more than there are neurons leaves ranks empty.
    method : {"block", "random", "graph", "hypergraph"}
        Which partitioner.
    seed : int
        Equal seeds give equal partitions.

    Returns
    -------
    Partition
        Balanced: no rank owns more than max(1.03 x even, even plus one row) of a layer's connections.

    Raises
    ------
    SettingError
        Another method, fewer than one worker, or a negative seed.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if workers < 1:
        raise SettingError(f"workers must be at least 1, not {workers}")
    if seed < 0:
        raise SettingError(f"seed must be at least 0, not {seed}")
    if method == "block":
        owners = block_owners(network, workers)
    elif method == "random":
        owners = random_owners(network, workers, seed)
    elif method == "graph":
        owners = graph_owners(network, workers, seed)
    else:
        owners = hypergraph_owners(network, workers, seed)
    return Partition(workers, owners)
