"""Conversion of a stored shard to the shard type of the kernels."""

from __future__ import annotations

from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import LayerKernel, Shard, ShardLayer, read_only
from fsd_inference.partitioning.shard import RankShard, ShardPart


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


def add_layer(shard: Shard, rank: int, layer: int, part: ShardPart) -> None:
    """Add the next layer to the shard of a rank; errors as of `kernel_shard`."""
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
            layer,
            ShardLayer(
                kernel,
                read_only(part.rows),
                read_only(part.column_source),
                read_only(part.column_row),
                part.receives,
                [(targets, read_only(rows)) for targets, rows in part.sends],
            ),
        )
    except ValueError as error:
        raise FileFormatError(f"shard of rank {rank}, layer {layer}: {error}") from error
