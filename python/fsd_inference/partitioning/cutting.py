"""Cutting a network: from a network to a directory of shards."""

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
        What is cut; one layer at a time is in memory.
    directory : path
        Written beside and renamed when complete; an older set of shards there is replaced.
    workers : int
        P.
    method : str
        One of `METHODS`.
    seed : int
        Equal seeds give equal shards.

    Returns
    -------
    Manifest
        What was written: files with digests, volumes of the exchange.

    Raises
    ------
    InputError, OutputError
        A setting makes no sense, the directory is taken by something else, or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fsd.partition(network, f"{folder}/shards", workers=2, method="graph").workers
    2
    """
    check_target(Path(directory))  # before it is cut, which can take long
    started = time.perf_counter()
    owners = partition_network(network, workers, method, seed)
    seconds = time.perf_counter() - started
    return write_shards(network, owners, Path(directory), method=method, seed=seed, seconds=seconds)
