"""Selection of a partitioner by name."""

from __future__ import annotations

from importlib import import_module

from fsd_inference.errors import SettingError
from fsd_inference.network import Network
from fsd_inference.partitioning.plan import Partition

# Module of each partitioner, imported lazily: ranks read shards without loading METIS or Mt-KaHyPar.
_PARTITIONERS = {"block": "block", "random": "shuffled", "graph": "graph", "hypergraph": "hypergraph"}
METHODS = tuple(_PARTITIONERS)
DEFAULT_METHOD = "graph"
"""The partitioner that is used if none is named."""
_SEEDS = 2**30  # METIS takes 32-bit seeds


def partition_network(network: Network, workers: int, method: str = "hypergraph", seed: int = 0) -> Partition:
    """Assign each neuron of a network to a rank.

    Parameters
    ----------
    network : Network
        The network to partition; its layers are requested one by one, possibly several times.
    workers : int
        Number of workers P; if there are more than neurons, some ranks own nothing.
    method : {"block", "random", "graph", "hypergraph"}
        Name of the partitioner.
    seed : int
        Random seed, 0 to 2^30 - 1; equal seeds give equal partitions.

    Returns
    -------
    Partition
        A balanced partition: no rank owns more of the connections of a layer than `balance.capacity`.

    Raises
    ------
    SettingError
        The method is unknown, there are fewer than one worker, or the seed is out of range.
    """
    if method not in METHODS:
        raise SettingError(f"method must be one of {', '.join(METHODS)}, not {method!r}")
    if workers < 1:
        raise SettingError(f"workers must be at least 1, not {workers}")
    if not 0 <= seed < _SEEDS:
        raise SettingError(f"seed must be 0 to {_SEEDS - 1}, not {seed}")
    partitioner = import_module(f"fsd_inference.partitioning.{_PARTITIONERS[method]}")
    return Partition(workers, partitioner.partition_owners(network, workers, seed))
