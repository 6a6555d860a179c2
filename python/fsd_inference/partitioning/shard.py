"""The shard of a rank: its rows of each layer, with the edges that it receives and sends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.kernels import KernelGroup
from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition, RankPlan

if TYPE_CHECKING:
    from fsd_inference.network import Layer  # workers do not import it, because it needs SciPy

U16_COLUMNS = 1 << 16


@dataclass(frozen=True, slots=True, eq=False)
class ShardPart:
    """The rows of a layer that one rank owns, in the form of `_kernels.LayerKernel` and `_kernels.ShardLayer`.

    Attributes
    ----------
    rows : ndarray of uint32
        Global index of the neuron of each local row, ascending.
    indptr, indices, values : ndarray of int64, uint16 or uint32, float32
        Weights as CSR, local rows x local columns. Local columns are in ascending global order, so the connections of a
        row keep their order in the whole network. Indices are uint16 for up to 65,536 columns. `values` has one entry
        per connection, or a single entry if the whole layer has a single value.
    columns : int
        Number of local columns: inputs to which any row of this rank is connected.
    bias : ndarray of float32
        One entry per row, or one for all rows.
    groups : tuple of (int, str, str, tuple of float)
        Consecutive rows that compute alike: their number, "sum" or "max", and kind and parameters of their activation.
    slopes : ndarray of float32
        Slopes of the "prelu" activation, one per row; empty if no row of the whole layer has it.
    zero_preserving : bool
        Whether the whole layer keeps all-zero samples all-zero (see `Layer.zero_preserving`).
    column_source, column_row : ndarray of uint32
        Supplier of each local column, and the row within the supplier. In layer 0, supplier 0 is the input and rows are
        features. In later layers, supplier 0 is the rank's own rows of the previous layer, and supplier i >= 1 is
        receives[i-1].
    receives : tuple of (int, int, int)
        (source rank, edge number, number of rows) of each edge that arrives before this layer.
    sends : tuple of (tuple of int, ndarray of uint32)
        (target ranks, local rows) of each edge that is sent after this layer, by edge number.
    """

    rows: NDArray[np.uint32]
    indptr: NDArray[np.int64]
    indices: NDArray[np.uint16] | NDArray[np.uint32]
    values: NDArray[np.float32]
    columns: int
    bias: NDArray[np.float32]
    groups: tuple[KernelGroup, ...]
    slopes: NDArray[np.float32]
    zero_preserving: bool
    column_source: NDArray[np.uint32]
    column_row: NDArray[np.uint32]
    receives: tuple[tuple[int, int, int], ...]
    sends: tuple[tuple[tuple[int, ...], NDArray[np.uint32]], ...]

    @property
    def boundary(self) -> int:
        """Number of rows that are sent to other ranks."""
        return int(np.unique(np.concatenate([rows for _, rows in self.sends])).size) if self.sends else 0


@dataclass(frozen=True, slots=True, eq=False)
class RankShard:
    """The part of the network that one rank computes: its rows of each layer."""

    rank: int
    workers: int
    features: int
    parts: tuple[ShardPart, ...]

    @property
    def plan(self) -> RankPlan:
        """The view of the exchange plan for the state machine of this rank."""
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
    """Yield the part of layer `k` of each rank, in order of ranks.

    Raises
    ------
    InputError
        The plan does not send a row to a rank that needs it.
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
    # Positions of the rank's connections in the arrays of the layer.
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
        groups=_groups_of(arrays.groups, rows),
        slopes=arrays.slopes[rows] if arrays.slopes.size else arrays.slopes,
        zero_preserving=arrays.zero_preserving,
        column_source=source,
        column_row=row,
        receives=tuple((edge.source, number, edge.rows.size) for edge, number in incoming),
        sends=tuple((edge.targets, np.searchsorted(rows, edge.rows).astype(np.uint32)) for edge in outgoing),
    )


def _groups_of(groups: Sequence[KernelGroup], rows: NDArray[np.int64]) -> tuple[KernelGroup, ...]:
    """Return the groups of a selection of ascending rows of a layer."""
    ends = np.searchsorted(rows, np.cumsum([count for count, *_ in groups]))
    counts = np.diff(ends, prepend=0)
    return tuple((int(count), *group[1:]) for count, group in zip(counts, groups, strict=True) if count)


def _suppliers(
    columns: NDArray[np.int64], k: int, rank: int, partition: Partition, edges: list[NDArray[np.int32]]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return the supplier of each column, and the row within the supplier."""
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
        raise InputError(f"the plan does not send row {missing[0]} of layer {k - 1} to rank {rank}, which needs it")
    return source[columns], row[columns]
