"""A shard: all that one rank needs of the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition, RankPlan

if TYPE_CHECKING:
    from fsd_inference.network import Layer  # a worker never imports it: that room needs SciPy

U16_COLUMNS = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class ShardPart:
    """One rank's part of a layer, as `_kernels.LayerKernel` and `_kernels.ShardLayer` take it.

    Attributes
    ----------
    rows : ndarray of uint32
        The global neuron of each local row, ascending.
    indptr, indices, values : ndarray of int64, uint16 or uint32, float32
        Local rows x local columns in CSR. Local columns are in ascending global order, so a row's connections keep
        the order of the whole network's. uint16 where there are at most 65,536 columns. `values` has one entry a
        connection, or one in all where the whole layer has one value.
    columns : int
        Local columns: those that some row of this rank is connected to.
    bias : ndarray of float32
        One entry a row, or one for all.
    activation : str
        "identity", "relu" or "clipped_relu".
    clip : float
        Used by "clipped_relu" alone.
    zero_preserving : bool
        A fact of the whole layer.
    column_source, column_row : ndarray of uint32
        Per local column its supplier and the row within it. Layer 0: supplier 0 is the input, rows are features.
        Later layers: supplier 0 is this rank's own rows of the layer before, supplier i >= 1 is receives[i-1].
    receives : tuple of (int, int, int)
        (source rank, edge number, rows of the edge) per edge that comes before this layer.
    sends : tuple of (tuple of int, ndarray of uint32)
        (target ranks, local rows) per edge sent after this layer, by edge number.
    """

    rows: NDArray[np.uint32]
    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16] | NDArray[np.uint32]
    values: NDArray[np.float32]
    columns: int
    bias: NDArray[np.float32]
    activation: str
    clip: float
    zero_preserving: bool
    column_source: NDArray[np.uint32]
    column_row: NDArray[np.uint32]
    receives: tuple[tuple[int, int, int], ...]
    sends: tuple[tuple[tuple[int, ...], NDArray[np.uint32]], ...]

    @property
    def boundary(self) -> int:
        """Rows that other ranks need."""
        return int(np.unique(np.concatenate([rows for _, rows in self.sends])).size) if self.sends else 0


@dataclass(frozen=True, slots=True, eq=False)
class RankShard:
    """All that one rank needs of the network: its part of each layer."""

    rank: int
    workers: int
    features: int
    parts: tuple[ShardPart, ...]

    @property
    def plan(self) -> RankPlan:
        """What the rank's state machine must know."""
        boundary = tuple(part.boundary for part in self.parts)
        return RankPlan(
            self.rank,
            self.workers,
            tuple(tuple((source, number) for source, number, _ in part.receives) for part in self.parts),
            tuple(tuple(targets for targets, _ in part.sends) for part in self.parts),
            boundary,
            tuple(part.rows.size - sent for part, sent in zip(self.parts, boundary, strict=True)),
        )


def layer_parts(layer: Layer, k: int, partition: Partition, plan: ExchangePlan) -> Iterator[ShardPart]:
    """Yield each rank's part of layer `k`, rank 0 first.

    Raises
    ------
    InputError
        The plan does not bring a rank a row that it needs.
    """
    incoming, outgoing = plan.receives(k), plan.sends(k)
    for rank in range(partition.workers):
        yield _rank_part(layer, k, rank, partition, incoming=incoming.get(rank, []), outgoing=outgoing.get(rank, []))


def _rank_part(
    layer: Layer, k: int, rank: int, partition: Partition, *, incoming: list[tuple[Edge, int]], outgoing: list[Edge]
) -> ShardPart:
    arrays = layer.kernel_arrays()
    rows = partition.rows(k, rank)
    starts, counts = arrays.indptr[rows], np.diff(arrays.indptr)[rows]
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # Where each of the rank's connections lies in the layer's arrays.
    picked = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
    connected = arrays.indices[picked]
    used = np.zeros(arrays.columns, np.bool_)
    used[connected] = True
    columns = np.flatnonzero(used)
    local = np.zeros(used.size, np.uint32)
    local[columns] = np.arange(columns.size)
    source, row = _suppliers(columns, k, rank, partition, [edge.rows for edge, _ in incoming])
    return ShardPart(
        rows=rows.astype(np.uint32),
        indptr=indptr,
        indices=local[connected].astype(np.uint16 if columns.size <= U16_COLUMNS else np.uint32),
        values=arrays.values if arrays.values.size == 1 else arrays.values[picked],
        columns=columns.size,
        bias=arrays.bias if arrays.bias.size == 1 else arrays.bias[rows],
        activation=arrays.activation,
        clip=arrays.clip,
        zero_preserving=arrays.zero_preserving,
        column_source=source,
        column_row=row,
        receives=tuple((edge.source, number, edge.rows.size) for edge, number in incoming),
        sends=tuple((edge.targets, np.searchsorted(rows, edge.rows).astype(np.uint32)) for edge in outgoing),
    )


def _suppliers(
    columns: NDArray[np.int64], k: int, rank: int, partition: Partition, edges: list[NDArray[np.int32]]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return for each column who supplies it, and as which row."""
    if k == 0:
        return np.zeros(columns.size, np.uint32), columns.astype(np.uint32)
    supplies: list[NDArray[Any]] = [partition.rows(k - 1, rank), *edges]
    source = np.full(partition.owners[k - 1].size, len(supplies), np.uint32)
    row = np.zeros(source.size, np.uint32)
    for supplier, supplied in enumerate(supplies):
        source[supplied] = supplier
        row[supplied] = np.arange(supplied.size)
    missing = columns[source[columns] == len(supplies)]
    if missing.size:
        raise InputError(f"the plan does not bring row {missing[0]} of layer {k - 1} to rank {rank}, which needs it")
    return source[columns], row[columns]
