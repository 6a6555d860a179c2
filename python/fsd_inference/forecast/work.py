"""The work of each rank of a partition: its connections, and the bytes of its shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.network.layer import index_dtype
from fsd_inference.partitioning.balance import loads
from fsd_inference.partitioning.exchange import check_partition
from fsd_inference.partitioning.plan import ExchangePlan, Partition

_A_ROW = 8 + 4 + 4  # bytes per row of a shard: its start index, bias and neuron number


@dataclass(frozen=True, slots=True)
class Work:
    """The amount of work of each rank of a partition.

    Attributes
    ----------
    connections : ndarray of int64, layers x P
        Number of connections (nonzero weights) of each rank's rows in each layer.
    inputs : tuple of int
        Number of neurons that each layer reads.
    shard_bytes : ndarray of int64, P
        Size of each rank's shard.
    """

    connections: NDArray[np.int64]
    inputs: tuple[int, ...]
    shard_bytes: NDArray[np.int64]

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return int(self.connections.shape[0])

    @property
    def workers(self) -> int:
        """Number of workers P."""
        return int(self.connections.shape[1])


def rank_work(network: Network, partition: Partition) -> Work:
    """Return the work of each rank of a partition; only one layer at a time is held in memory.

    Raises
    ------
    InputError
        The partition does not fit the network.
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
    """Return the plan of a single rank, which exchanges nothing."""
    return ExchangePlan(1, ((),) * (len(network) - 1))


def whole_work(network: Network) -> Work:
    """Return the work of a single rank, without reading the layers of a stored network."""
    sizes, widths = network.sizes(), network.widths
    connections = np.array([[of_layer] for of_layer, _ in sizes], np.int64)
    shard_bytes = sum(
        _bytes(connections[k], np.array([widths[k + 1]]), widths[k], stored) for k, (_, stored) in enumerate(sizes)
    )
    return Work(connections, widths[:-1], np.array(shard_bytes, np.int64))


def _bytes(
    connections: NDArray[np.int64], rows: NDArray[np.int64], inputs: int, stored_weights: int
) -> NDArray[np.int64]:
    """Return the shard bytes of each rank's rows of a layer."""
    a_connection = index_dtype(inputs).itemsize + (4 if stored_weights > 1 else 0)
    return connections * a_connection + rows * _A_ROW
