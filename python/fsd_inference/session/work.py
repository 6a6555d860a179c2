"""What each rank of a partition owns, from the network: connections and the size of its shard."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsd_inference.cost.work import Work
from fsd_inference.network import Network
from fsd_inference.network.layer import index_dtype
from fsd_inference.partitioning.balance import loads
from fsd_inference.partitioning.exchange import check_partition
from fsd_inference.partitioning.plan import ExchangePlan, Partition

_A_ROW = 8 + 4 + 4  # bytes of a shard: where a row starts, its bias, its neuron


def rank_work(network: Network, partition: Partition) -> Work:
    """Return what the ranks of `partition` own; one layer at a time is in memory.

    Raises
    ------
    InputError
        The partition is not one of this network.
    """
    check_partition(network, partition)
    connections = np.zeros((len(network), partition.workers), np.int64)
    shard_bytes = np.zeros(partition.workers, np.int64)
    for k, (layer, owners) in enumerate(zip(network, partition.owners, strict=True)):
        connections[k] = loads(owners, np.diff(layer.kernel_arrays().indptr), partition.workers)
        rows = np.bincount(owners, minlength=partition.workers)
        shard_bytes += _bytes(connections[k], rows, layer.shape[1], layer.stored_weights)
    return Work(connections, network.widths[:-1], shard_bytes)


def whole_plan(network: Network) -> ExchangePlan:
    """Return the plan of a single rank, who exchanges nothing."""
    return ExchangePlan(1, ((),) * (len(network) - 1))


def whole_work(network: Network) -> Work:
    """Return what a single rank owns: all, which is known of a stored network before its layers are read."""
    sizes, widths = network.sizes(), network.widths
    connections = np.array([[of_layer] for of_layer, _ in sizes], np.int64)
    shard_bytes = sum(
        _bytes(connections[k], np.array([widths[k + 1]]), widths[k], stored) for k, (_, stored) in enumerate(sizes)
    )
    return Work(connections, widths[:-1], np.array(shard_bytes, np.int64))


def _bytes(
    connections: NDArray[np.int64], rows: NDArray[np.int64], inputs: int, stored_weights: int
) -> NDArray[np.int64]:
    """Return the bytes of each rank's part of a layer."""
    a_connection = index_dtype(inputs).itemsize + (4 if stored_weights > 1 else 0)
    return connections * a_connection + rows * _A_ROW
