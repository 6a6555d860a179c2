"""What each rank of a partition owns, from the network: connections and the size of its shard."""

from __future__ import annotations

import numpy as np

from fsd_inference.cost.work import Work
from fsd_inference.network import Network
from fsd_inference.partition.balance import loads
from fsd_inference.partition.exchange import check_partition
from fsd_inference.partition.plan import Partition


def rank_work(network: Network, partition: Partition) -> Work:
    """Return what the ranks of `partition` own; one layer at a time is in memory.

    Raises
    ------
    InputError
        The partition is not one of this network.
    """
    check_partition(network, partition)
    connections = np.zeros((len(network), partition.workers), np.int64)
    shard_bytes = np.zeros(partition.workers, np.float64)
    for k, (layer, owners) in enumerate(zip(network, partition.owners, strict=True)):
        arrays = layer.kernel_arrays()
        connections[k] = loads(owners, np.diff(arrays.indptr), partition.workers)
        a_connection = arrays.indices.itemsize + (4 if arrays.values.size > 1 else 0)
        a_row = arrays.indptr.itemsize + 4 + 4  # where it starts, its bias, its neuron
        shard_bytes += connections[k] * a_connection + np.bincount(owners, minlength=partition.workers) * a_row
    return Work(connections, network.widths[:-1], shard_bytes.astype(np.int64))
