"""Conversion of a stored shard to the shard type of the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import LayerKernel, Shard, ShardLayer, read_only
from fsd_inference.partitioning.shard import RankShard, ShardPart

Send = tuple[Sequence[int], NDArray[np.uint32]]
"""Target ranks and local rows of an edge."""


def kernel_shard(shard: RankShard) -> Shard:
    """Return a shard in the form of the kernels, which borrows the arrays of its weights.

    Raises
    ------
    FileFormatError
        The shard is inconsistent.
    """
    try:
        kernels = Shard(shard.rank, shard.workers, [part.receives for part in shard.parts])
    except ValueError as error:
        raise FileFormatError(f"shard of rank {shard.rank}: {error}") from error
    for k, part in enumerate(shard.parts):
        add_layer(kernels, shard.rank, k, part)
    return kernels


def add_layer(
    shard: Shard, rank: int, layer: int, part: ShardPart, *, first: int = 0, keeper: int | None = None
) -> None:
    """Add the next layer to the shard of a rank; errors as of `kernel_shard`.

    The shard's own layers start at layer `first`. With a `keeper`, one more edge has all rows and goes to this number,
    which no rank has.
    """
    sends: list[Send] = [(targets, read_only(rows)) for targets, rows in part.sends]
    if keeper is not None and part.rows.size:
        sends.append(((keeper,), np.arange(part.rows.size, dtype=np.uint32)))
    try:
        kernel = LayerKernel(
            read_only(part.indptr),
            read_only(part.indices),
            read_only(part.values),
            part.columns,
            read_only(part.bias),
            part.groups,
            read_only(part.slopes),
            part.zero_preserving,
        )
        shard.add(
            layer - first,
            ShardLayer(
                kernel,
                read_only(part.rows),
                read_only(part.column_source),
                read_only(part.column_row),
                part.receives,
                sends,
            ),
        )
    except ValueError as error:
        raise FileFormatError(f"shard of rank {rank}, layer {layer}: {error}") from error


def copying_layer(
    rows: NDArray[np.uint32], *, source: tuple[int, int, int] | None = None, sends: Sequence[Send] = ()
) -> ShardLayer:
    """Return a layer whose rows are those before it, unchanged.

    Parameters
    ----------
    rows : ndarray of uint32
        Global neuron of each row, ascending.
    source : (int, int, int), optional
        (source rank, edge number, number of rows) of the edge with the rows; by default they are the rank's own, or
        the features of the input.
    sends : sequence of (targets, local rows)
        The edges after the layer.
    """
    count = rows.size
    kernel = LayerKernel(
        read_only(np.arange(count + 1, dtype=np.int64)),
        read_only(np.arange(count, dtype=np.uint32)),
        read_only(np.ones(1, np.float32)),
        count,
        read_only(np.zeros(1, np.float32)),
        [(count, "sum", "identity", ())] if count else [],
        read_only(np.empty(0, np.float32)),
        True,
    )
    supplier = np.full(count, source is not None, np.uint32)
    return ShardLayer(
        kernel, rows, supplier, np.arange(count, dtype=np.uint32), [] if source is None else [source], sends
    )
