"""The partitioners by name."""

from __future__ import annotations

from importlib import import_module

from fsd_inference.errors import SettingError
from fsd_inference.network import Network
from fsd_inference.partitioning.plan import Partition

# Imported when used: ranks read shards without ever loading METIS or Mt-KaHyPar.
_PARTITIONERS = {"block": "block", "random": "shuffled", "graph": "graph", "hypergraph": "hypergraph"}
METHODS = tuple(_PARTITIONERS)
DEFAULT_METHOD = "graph"
"""The partitioner of those who name none."""
_SEEDS = 2**30  # METIS counts them in 32 bits


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
        0 to 2^30 - 1; equal seeds give equal partitions.

    Returns
    -------
    Partition
        Balanced: no rank owns more than max(1.03 x even, even plus one row) of a layer's connections.

    Raises
    ------
    SettingError
        Another method, fewer than one worker, or a seed out of range.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if workers < 1:
        raise SettingError(f"workers must be at least 1, not {workers}")
    if not 0 <= seed < _SEEDS:
        raise SettingError(f"seed must be 0 to {_SEEDS - 1}, not {seed}")
    partitioner = import_module(f"fsd_inference.partitioning.{_PARTITIONERS[method]}")
    return Partition(workers, partitioner.partition_owners(network, workers, seed))
