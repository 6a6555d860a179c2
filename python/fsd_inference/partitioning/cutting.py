"""`partition`: split a network into a directory of shards, one per rank."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fsd_inference.network import Network
from fsd_inference.partitioning.manifest import Manifest
from fsd_inference.partitioning.methods import partition_network
from fsd_inference.partitioning.shards import check_target, write_shards


def partition(
    network: Network,
    directory: str | os.PathLike[str],
    *,
    workers: int,
    method: str = "hypergraph",
    seed: int = 0,
) -> Manifest:
    """Partition a network over `workers` ranks and write their shards into `directory`.

    Parameters
    ----------
    network : Network
        The network to partition; only one layer at a time is held in memory.
    directory : path
        Target directory, written atomically; an older set of shards there is replaced.
    workers : int
        Number of workers P.
    method : str
        Name of the partitioner, one of `METHODS`.
    seed : int
        Random seed of the partitioner; equal seeds give equal shards.

    Returns
    -------
    Manifest
        Description of the shards: files with digests, and volumes of the exchange.

    Raises
    ------
    InputError, OutputError
        A setting is invalid, or the directory holds anything but shards or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fsd.partition(network, f"{folder}/shards", workers=2, method="graph").workers
    2
    """
    check_target(Path(directory))  # first, because partitioning can take minutes
    started = time.perf_counter()
    owners = partition_network(network, workers, method, seed)
    seconds = time.perf_counter() - started
    return write_shards(network, owners, Path(directory), method=method, seed=seed, seconds=seconds)
