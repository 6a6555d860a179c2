"""The safetensors format of shards and plans: encoding, and parsing with validation of untrusted content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import load_json
from fsd_inference.kernels import KernelGroup
from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition
from fsd_inference.partitioning.shard import U16_COLUMNS, ShardPart
from fsd_inference.partitioning.tensors import read_tensors

_VERSION, _READS = 2, (1, 2)
_Group: TypeAlias = tuple[int | None, str, str, tuple[float, ...]]


def edge_tensors(
    layer: int, receives: Sequence[tuple[int, int, int]], sends: Sequence[Edge]
) -> dict[str, NDArray[Any]]:
    """Return the arrays of the edges before and after one layer, by their tensor names; they come before all layers.

    Parameters
    ----------
    layer : int
    receives : sequence of (int, int, int)
        As in `ShardPart`.
    sends : sequence of Edge
        The edges that the rank sends after the layer.
    """
    arrays: dict[str, NDArray[Any]] = {
        "receives": np.array(receives, np.uint32).reshape(-1, 3),
        "send_targets": _joined([np.array(edge.targets, np.uint32) for edge in sends]),
        "send_sizes": np.array([(len(edge.targets), edge.rows.size) for edge in sends], np.uint32).reshape(-1, 2),
    }
    return {tensor_name(layer, name): array for name, array in arrays.items()}


def part_tensors(layer: int, part: ShardPart) -> dict[str, NDArray[Any]]:
    """Return the arrays of the part of one layer, by their tensor names, without those of `edge_tensors`."""
    arrays: dict[str, NDArray[Any]] = {
        "rows": part.rows,
        "indptr": part.indptr,
        "indices": part.indices,
        "values": part.values,
        "bias": part.bias,
        **({"slopes": part.slopes} if part.slopes.size else {}),
        "column_source": part.column_source,
        "column_row": part.column_row,
        "send_rows": _joined([rows for _, rows in part.sends]),
    }
    return {tensor_name(layer, name): array for name, array in arrays.items()}


def tensor_name(layer: int, name: str) -> str:
    """Return the name of a layer's tensor in the file."""
    return f"layers.{layer:05d}.{name}"


def part_metadata(part: ShardPart, sha256: str) -> dict[str, Any]:
    """Return the scalars of the part of one layer, and the digest of its `part_tensors`, as JSON values."""
    return {
        "groups": part.groups,
        "zero_preserving": part.zero_preserving,
        "boundary": part.boundary,
        "sha256": sha256,
    }


def shard_metadata(rank: int, workers: int, features: int, parts: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return the metadata of a shard file, given the `part_metadata` of each layer."""
    head = {"version": _VERSION, "rank": rank, "workers": workers, "features": features, "layers": parts}
    return {"fsd_shard": json.dumps(head)}


class LayerHead(NamedTuple):
    """The scalars of a layer; `boundary` and `sha256` are None in shards of earlier releases."""

    groups: tuple[_Group, ...]
    zero_preserving: bool
    boundary: int | None
    sha256: str | None


class ShardHead(NamedTuple):
    """The metadata of a shard file."""

    rank: int
    workers: int
    features: int
    layers: tuple[LayerHead, ...]


def parse_head(metadata: Mapping[str, str], what: str) -> ShardHead:
    """Parse the metadata of a shard file; raise FileFormatError, which names `what`, if they are not valid."""
    try:
        head = load_json(metadata["fsd_shard"])
        version = head["version"]
        if version not in _READS:
            raise FileFormatError(f"{what}: shard format {version} is not known; this release reads 1 and 2")
        rank, workers, features = (int(head[name]) for name in ("rank", "workers", "features"))
        layers = tuple(
            LayerHead(
                _written_groups(layer, version),
                bool(layer["zero_preserving"]),
                None if layer.get("boundary") is None else int(layer["boundary"]),
                None if layer.get("sha256") is None else str(layer["sha256"]),
            )
            for layer in head["layers"]
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FileFormatError(f"{what}: not a shard of a network") from error
    if not (0 <= rank < workers and features >= 1 and layers):
        raise FileFormatError(
            f"{what}: rank {rank} of {workers}, {features} features, {len(layers)} layers are not a valid shard"
        )
    return ShardHead(rank, workers, features, layers)


def _written_groups(layer: dict[str, Any], version: object) -> tuple[_Group, ...]:
    """Return the groups of rows of a layer as written; the number of rows is None for all, as in version 1."""
    if version == 1:
        kind = str(layer["activation"])
        return ((None, "sum", kind, (float(layer["clip"]),) if kind == "clipped_relu" else ()),)
    return tuple(
        (int(rows), str(reduce), str(kind), tuple(map(float, parameters)))
        for rows, reduce, kind, parameters in layer["groups"]
    )


class PartReader:
    """Reads and validates the tensors of one layer of a shard file.

    Parameters
    ----------
    tensors : mapping
        Arrays of the file by name: those of `edge_tensors`, and for `read` those of `part_tensors`.
    what : str
        Name of the file, for messages.
    layer : int
    head : ShardHead
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]], what: str, layer: int, head: ShardHead) -> None:
        self._tensors, self._what, self._layer = tensors, what, layer
        self._rank, self._workers = head.rank, head.workers
        self._scalars, self._last = head.layers[layer], layer == len(head.layers) - 1
        self._features = head.features

    def _fail(self, tensor: str, why: str) -> FileFormatError:
        return FileFormatError(f"{self._what}: layer {self._layer}, tensor {tensor}: {why}")

    def _take(self, name: str, dtype: DTypeLike, *shape: int | None) -> NDArray[Any]:
        array = self._tensors.get(tensor_name(self._layer, name))
        if array is None:
            raise self._fail(name, "missing")
        if array.dtype != dtype:
            raise self._fail(name, f"must be {np.dtype(dtype)}, not {array.dtype}")
        if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
            raise self._fail(name, f"has shape {array.shape}, which does not fit")
        return array

    def read(self, own: int) -> ShardPart:
        """Return the part of the layer; `own` is the number of the rank's rows of the previous layer."""
        own = self._features if self._layer == 0 else own
        rows = self._take("rows", np.uint32, None)
        self._ascending("rows", rows)
        groups = self._groups(self._scalars.groups, rows.size)
        receives = self.receives()
        source = self._take("column_source", np.uint32, None)
        row = self._take("column_row", np.uint32, source.size)
        supplied = np.array([own, *(n for _, _, n in receives)])
        if source.size and source.max() >= supplied.size:
            raise self._fail("column_source", f"names supplier {source.max()} of {supplied.size}")
        if (row >= supplied[source]).any():
            raise self._fail("column_row", "names a row that its supplier does not have")
        indptr, indices, values = self._connections(rows.size, source.size)
        bias = self._take("bias", np.float32, None)
        if bias.size not in (1, rows.size):
            raise self._fail("bias", f"has {bias.size} entries for {rows.size} rows")
        for name, array in (("values", values), ("bias", bias)):
            if not np.isfinite(array).all():
                raise self._fail(name, "a number is not finite")
        part = ShardPart(
            rows=rows,
            indptr=indptr,
            indices=indices,
            values=values,
            columns=source.size,
            bias=bias,
            groups=groups,
            slopes=self._slopes(rows.size),
            zero_preserving=self._scalars.zero_preserving,
            column_source=source,
            column_row=row,
            receives=receives,
            sends=self._sends(rows.size),
        )
        if self._scalars.boundary not in (None, part.boundary):
            raise FileFormatError(
                f"{self._what}: layer {self._layer}: {part.boundary} rows are sent, not {self._scalars.boundary}"
            )
        return part

    def _groups(self, written: tuple[_Group, ...], rows: int) -> tuple[KernelGroup, ...]:
        """Return the groups of rows; the kernels check what they compute."""
        groups = tuple(
            (rows if count is None else count, reduce, kind, parameters) for count, reduce, kind, parameters in written
        )
        counts = [group[0] for group in groups]
        if min(counts, default=0) < 0 or sum(counts) != rows:
            raise FileFormatError(f"{self._what}: layer {self._layer}: its groups do not have its {rows} rows")
        return groups

    def _slopes(self, rows: int) -> NDArray[Any]:
        if tensor_name(self._layer, "slopes") not in self._tensors:
            return np.empty(0, np.float32)
        return self._take("slopes", np.float32, rows)

    def _ascending(self, name: str, array: NDArray[Any]) -> None:
        if (array[1:] <= array[:-1]).any():
            raise self._fail(name, "must ascend")

    def receives(self) -> tuple[tuple[int, int, int], ...]:
        """Return (source rank, edge number, number of rows) of each edge that arrives before this layer."""
        receives = self._take("receives", np.uint32, None, 3)
        if self._layer == 0 and receives.size:
            raise self._fail("receives", "must be empty for layer 0")
        edges = [(int(s), int(e), int(n)) for s, e, n in receives]
        if any(s >= self._workers or s == self._rank or n == 0 for s, _, n in edges):
            raise self._fail("receives", "an edge is empty, or does not come from another rank")
        if [edge[:2] for edge in edges] != sorted({edge[:2] for edge in edges}):
            raise self._fail("receives", "edges must ascend by source and number")
        return tuple(edges)

    def _connections(self, rows: int, columns: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        indptr = self._take("indptr", np.int64, rows + 1)
        indices = self._take("indices", np.uint16 if columns <= U16_COLUMNS else np.uint32, None)
        if indptr[0] != 0 or indptr[-1] != indices.size or (indptr[1:] < indptr[:-1]).any():
            raise self._fail("indptr", f"must ascend from 0 to the {indices.size} connections")
        if indices.size and indices.max() >= columns:
            raise self._fail("indices", f"names column {indices.max()} of {columns}")
        # Columns ascend within a row, so the only steps that may descend are those to the first connection of a row.
        first = np.zeros(indices.size + 1, np.bool_)
        first[indptr] = True
        if ((indices[1:] <= indices[:-1]) & ~first[1:-1]).any():
            raise self._fail("indices", "must ascend within each row")
        values = self._take("values", np.float32, None)
        if values.size not in (1, indices.size):
            raise self._fail("values", f"has {values.size} entries for {indices.size} connections")
        return indptr, indices, values

    def targets(self) -> tuple[tuple[int, ...], ...]:
        """Return the target ranks of each edge that is sent after this layer."""
        sizes = self._send_sizes()
        targets = self._take("send_targets", np.uint32, int(sizes[:, 0].sum()))
        found = []
        for to in np.split(targets, np.cumsum(sizes[:-1, 0])) if sizes.size else ():
            self._ascending("send_targets", to)
            if to[-1] >= self._workers or self._rank in to:
                raise self._fail("send_targets", "a target is not another rank")
            found.append(tuple(int(t) for t in to))
        return tuple(found)

    def boundary(self) -> int:
        """Return the number of rows that are sent to other ranks, as the file says or from the rows themselves."""
        if self._scalars.boundary is not None:
            return self._scalars.boundary
        return int(np.unique(self._take("send_rows", np.uint32, None)).size)

    def _send_sizes(self) -> NDArray[np.int64]:
        """Return the numbers of targets and of rows of each edge."""
        sizes = self._take("send_sizes", np.uint32, None, 2).astype(np.int64)
        if self._last and sizes.size:
            raise self._fail("send_sizes", "must be empty for the last layer")
        if (sizes == 0).any():
            raise self._fail("send_sizes", "an edge has no target or no row")
        return sizes

    def _sends(self, rows: int) -> tuple[tuple[tuple[int, ...], NDArray[np.uint32]], ...]:
        sizes = self._send_sizes()
        sent = self._take("send_rows", np.uint32, int(sizes[:, 1].sum()))
        by_edge = np.split(sent, np.cumsum(sizes[:-1, 1])) if sizes.size else []
        for local in by_edge:
            self._ascending("send_rows", local)
            if local[-1] >= rows:
                raise self._fail("send_rows", f"names row {local[-1]} of {rows}")
        return tuple(zip(self.targets(), by_edge, strict=True))


def plan_tensors(partition: Partition, plan: ExchangePlan) -> dict[str, NDArray[Any]]:
    """Return owners and edges as flat arrays, by their tensor names in the plan file."""
    edges = [(k, edge) for k, exchange in enumerate(plan.exchanges) for edge in exchange]
    sizes = [(k, edge.source, len(edge.targets), edge.rows.size) for k, edge in edges]
    return {
        "widths": np.array([owners.size for owners in partition.owners], np.int64),
        "owners": _joined(list(partition.owners), np.int32),
        "edge_sizes": np.array(sizes, np.uint32).reshape(-1, 4),
        "edge_targets": _joined([np.array(edge.targets, np.uint32) for _, edge in edges]),
        "edge_rows": _joined([edge.rows for _, edge in edges], np.int32),
    }


def parse_plan(data: bytes, workers: int, what: str) -> tuple[Partition, ExchangePlan]:
    """Parse partition and exchange plan from a plan file.

    Raises
    ------
    FileFormatError
        The data is not a valid plan for this number of workers; the message names `what`.
    """
    _, tensors = read_tensors(data, what)
    expected = {"widths": ("<i8", 1), "owners": ("<i4", 1), "edge_sizes": ("<u4", 2)}
    expected |= {"edge_targets": ("<u4", 1), "edge_rows": ("<i4", 1)}
    for name, (dtype, dimensions) in expected.items():
        if name not in tensors or tensors[name].dtype != dtype or tensors[name].ndim != dimensions:
            raise FileFormatError(
                f"{what}: tensor {name} is missing or not a {dimensions}-D array of {np.dtype(dtype)}"
            )
    widths, owners, sizes, targets, rows = (tensors[name] for name in expected)
    if widths.size == 0 or (widths < 1).any() or widths.sum() != owners.size:
        raise FileFormatError(f"{what}: tensor owners does not have one entry per neuron")
    if owners.min() < 0 or owners.max() >= workers:
        raise FileFormatError(f"{what}: tensor owners names a rank beyond {workers - 1}")
    partition = Partition(workers, tuple(np.split(owners, np.cumsum(widths)[:-1])))
    counts = sizes.astype(np.int64)
    if counts.shape[1] != 4 or counts[:, 2].sum() != targets.size or counts[:, 3].sum() != rows.size:
        raise FileFormatError(f"{what}: tensor edge_sizes does not fit the edges")
    exchanges: list[list[Edge]] = [[] for _ in range(widths.size - 1)]
    target_ends, row_ends = np.cumsum(counts[:, 2]), np.cumsum(counts[:, 3])
    for (k, source, target_count, row_count), target_end, row_end in zip(counts, target_ends, row_ends, strict=True):
        edge = Edge(
            int(source),
            tuple(int(t) for t in targets[target_end - target_count : target_end]),
            rows[row_end - row_count : row_end],
        )
        if not (k < len(exchanges) and _is_edge(edge, partition.owners[k], workers)):
            raise FileFormatError(f"{what}: an edge of rank {source} after layer {k} does not fit the partition")
        exchanges[k].append(edge)
    if (
        any(e != sorted(e, key=lambda edge: (edge.source, edge.targets)) for e in exchanges)
        or (np.diff(counts[:, 0]) < 0).any()
    ):
        raise FileFormatError(f"{what}: the edges are not in order")
    return partition, ExchangePlan(workers, tuple(tuple(edges) for edges in exchanges))


def _is_edge(edge: Edge, owners: NDArray[np.int32], workers: int) -> bool:
    """Return whether an edge is valid: not empty, ascending, in range, from the owner of its rows to other ranks."""
    to, rows = edge.targets, edge.rows
    return (
        edge.source < workers
        and bool(to)
        and list(to) == sorted(set(to))
        and to[-1] < workers
        and edge.source not in to
        and rows.size > 0
        and bool((rows[1:] > rows[:-1]).all())
        and int(rows[0]) >= 0
        and int(rows[-1]) < owners.size
        and bool((owners[rows] == edge.source).all())
    )


def _joined(arrays: Sequence[NDArray[Any]], dtype: DTypeLike = np.uint32) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays]).astype(dtype, copy=False)
