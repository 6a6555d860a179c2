"""Reading of a shard from its start to its end, so that a rank can compute with the layers that have been read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.partitioning.manifest import Manifest
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.partitioning.shard import RankShard, ShardPart
from fsd_inference.partitioning.shard_file import PartReader, ShardHead, parse_head, tensor_name
from fsd_inference.partitioning.tensors import Bytes, Tensor, read_header

Read = Callable[[int], Bytes]
"""Returns the next bytes of a file, at most as many as requested."""

Arrays = Mapping[str, NDArray[Any]]


class ShardReader:
    """A shard whose edges have been read, and whose layers are read when they are asked for.

    Parameters
    ----------
    what : str
        Name of the file, for messages.
    head : ShardHead
    tensors : sequence of Tensor
        All tensors of the file.
    edges : mapping
        Arrays of all edges, by tensor name.
    layers : iterator of mapping
        The other arrays of each layer.
    widths : sequence of int, optional
        Number of neurons of each layer of the whole network.

    Attributes
    ----------
    head : ShardHead
    receives : tuple
        For each layer the edges that arrive before it; see `ShardPart.receives`.
    plan : RankPlan
        The rank's part of the exchange plan.

    Raises
    ------
    FileFormatError
        The edges are not valid; `parts` raises it for the layers. The message names file, layer and tensor.
    """

    def __init__(
        self,
        what: str,
        head: ShardHead,
        tensors: Sequence[Tensor],
        edges: Arrays,
        layers: Iterator[Arrays],
        widths: Sequence[int] | None = None,
    ) -> None:
        self._what, self._edges, self._layers, self._widths = what, edges, layers, widths
        self.head = head
        readers = [self._reader(k, edges) for k in range(len(head.layers))]
        self.receives = tuple(reader.receives() for reader in readers)
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        rows = [math.prod(shapes.get(tensor_name(k, "rows"), ())) for k in range(len(readers))]
        boundary = tuple(reader.boundary() for reader in readers)
        self.plan = RankPlan(
            head.rank,
            head.workers,
            tuple(tuple((source, number) for source, number, _ in edges) for edges in self.receives),
            tuple(reader.targets() for reader in readers),
            boundary,
            tuple(count - sent for count, sent in zip(rows, boundary, strict=True)),
        )

    def parts(self) -> Iterator[ShardPart]:
        """Read and yield the parts of the layers in order."""
        own = 0
        for k, arrays in enumerate(self._layers):
            part = self._reader(k, {**self._edges, **arrays}).read(own)
            own = part.rows.size
            if own and self._widths is not None and int(part.rows[-1]) >= self._widths[k]:
                raise FileFormatError(f"{self._what}: layer {k}, tensor rows: names a neuron beyond the layer")
            yield part

    def whole(self) -> RankShard:
        """Read all layers."""
        return RankShard(self.head.rank, self.head.workers, self.head.features, tuple(self.parts()))

    def _reader(self, layer: int, arrays: Arrays) -> PartReader:
        return PartReader(arrays, self._what, layer, self.head)


def open_shard(read: Read, manifest: Manifest, rank: int) -> ShardReader:
    """Read the head of the shard of a rank, or all of the shard if an earlier release wrote it.

    Parameters
    ----------
    read : callable
        Returns the next bytes of the shard's file.
    manifest : Manifest
    rank : int

    Raises
    ------
    FileFormatError
        The bytes do not match the manifest, or are not a shard of this rank.
    """
    entry, widths = manifest.shard(rank), manifest.widths[1:]
    if entry.head is None:
        data = read(entry.size)
        entry.check(data)
        shard = whole_shard(data, entry.file, widths)
    else:
        data = read(entry.head.size)
        entry.check_head(data)
        metadata, tensors = read_header(data, entry.size, entry.file)
        head = parse_head(metadata, entry.file)
        edges = {tensor.name: tensor.array(data, tensor.start) for tensor in tensors if tensor.stop <= len(data)}
        layers = _layers(read, [tensor for tensor in tensors if tensor.stop > len(data)], head, entry.file)
        shard = ShardReader(entry.file, head, tensors, edges, layers, widths)
    found = (shard.head.rank, shard.head.workers, shard.head.features, len(shard.head.layers))
    if found != (rank, manifest.workers, manifest.features, manifest.layers):
        raise FileFormatError(f"{entry.file}: is a shard of another rank or network than the manifest says")
    return shard


def whole_shard(data: Bytes, what: str, widths: Sequence[int] | None = None) -> ShardReader:
    """Return a shard that is in memory as a whole; the arrays of its parts are views of `data`.

    Raises
    ------
    FileFormatError
        The data is not a valid shard; the message names `what`.
    """
    metadata, tensors = read_header(data, len(data), what)
    head = parse_head(metadata, what)
    arrays = {tensor.name: tensor.array(data, tensor.start) for tensor in tensors}
    return ShardReader(what, head, tensors, arrays, ({} for _ in head.layers), widths)


def _layers(read: Read, tensors: Sequence[Tensor], head: ShardHead, what: str) -> Iterator[Arrays]:
    """Read the tensors that follow the head, each into memory of its own; yield those of each layer once verified."""
    at = 0
    for k, layer in enumerate(head.layers):
        hashed, arrays = hashlib.sha256(), {}
        while at < len(tensors) and not tensors[at].name.startswith(tensor_name(k + 1, "")):
            tensor = tensors[at]
            at += 1
            data = read(tensor.stop - tensor.start)
            if len(data) != tensor.stop - tensor.start:
                raise FileFormatError(f"{what}: ends within layer {k}; upload the partitioned network again")
            if tensor.name.startswith(tensor_name(k, "")):
                hashed.update(data)
                arrays[tensor.name] = tensor.array(data)
        if hashed.hexdigest() != layer.sha256:
            raise FileFormatError(
                f"{what}: layer {k}: its digest differs; the file has changed or is corrupt", retryable=True
            )
        yield arrays
