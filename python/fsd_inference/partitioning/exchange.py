"""Computation of the exchange plan of a partition, and of the volumes that it exchanges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network import Layer, Network
from fsd_inference.partitioning.balance import imbalance, loads
from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition, PlanVolumes


def needed(layer: Layer, owners: NDArray[np.int32], workers: int) -> NDArray[np.bool_]:
    """Return which inputs of a layer each rank needs, bool of shape (n_in, workers)."""
    arrays = layer.kernel_arrays()
    need = np.zeros((arrays.columns, workers), np.bool_)
    need[arrays.indices, np.repeat(owners, np.diff(arrays.indptr))] = True
    return need


def check_partition(network: Network, partition: Partition) -> None:
    """Raise InputError unless `partition` has an owner for each neuron of `network`."""
    owned = tuple(owners.size for owners in partition.owners)
    if owned != network.widths[1:]:
        raise InputError(
            f"the partition is of another network: it has {len(owned)} layers and {sum(owned)} neurons, "
            f"the network {len(network)} and {sum(network.widths[1:])}, or their layers differ in width"
        )


def exchange_plan(network: Network, partition: Partition) -> ExchangePlan:
    """Return the plan with one edge per (source, target) pair, which carries exactly the rows that the target needs.

    Raises
    ------
    InputError
        The partition belongs to another network.
    """
    check_partition(network, partition)
    exchanges = []
    for k in range(1, len(network)):
        need = needed(network.layer(k), partition.owners[k], partition.workers)
        exchanges.append(_pair_edges(need, partition.owners[k - 1]))
    return ExchangePlan(partition.workers, tuple(exchanges))


def _pair_edges(need: NDArray[np.bool_], owners: NDArray[np.int32]) -> tuple[Edge, ...]:
    rows, targets = np.nonzero(need)
    sources = owners[rows]
    sent = sources != targets
    rows, targets, sources = rows[sent].astype(np.int32), targets[sent], sources[sent]
    order = np.lexsort((rows, targets, sources))
    rows, targets, sources = rows[order], targets[order], sources[order]
    first = np.flatnonzero((np.diff(sources, prepend=-1) != 0) | (np.diff(targets, prepend=-1) != 0))
    return tuple(
        Edge(int(sources[start]), (int(targets[start]),), piece)
        for start, piece in zip(first, np.split(rows, first[1:]), strict=False)
    )


def volumes(network: Network, partition: Partition, plan: ExchangePlan, seconds: float) -> PlanVolumes:
    """Return the volumes that workers exchange under `plan`; `seconds` is the run time of the partitioner."""
    row_sends, senders, receivers = 0, [], []
    for exchange in plan.exchanges:
        sent, received = np.zeros((2, plan.workers), np.int64)
        for edge in exchange:
            sent[edge.source] += edge.rows.size * len(edge.targets)
            received[list(edge.targets)] += edge.rows.size
        row_sends += int(sent.sum())
        senders.append(int(sent.max()))
        receivers.append(int(received.max()))
    worst = max(
        imbalance(loads(owners, np.diff(layer.kernel_arrays().indptr), plan.workers))
        for layer, owners in zip(network, partition.owners, strict=True)
    )
    return PlanVolumes(row_sends, tuple(senders), tuple(receivers), worst, seconds)
