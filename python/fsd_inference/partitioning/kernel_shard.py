"""Conversion of a stored shard to the shard type of the kernels."""

from __future__ import annotations

from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import LayerKernel, Shard, ShardLayer, read_only
from fsd_inference.partitioning.shard import RankShard


def kernel_shard(shard: RankShard) -> Shard:
    """Return a shard in the form of the kernels, which borrows the arrays.

    Raises
    ------
    FileFormatError
        The shard is inconsistent.
    """
    layers = []
    for k, part in enumerate(shard.parts):
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
            layers.append(
                ShardLayer(
                    kernel,
                    read_only(part.rows),
                    read_only(part.column_source),
                    read_only(part.column_row),
                    part.receives,
                    [(targets, read_only(rows)) for targets, rows in part.sends],
                )
            )
        except ValueError as error:
            raise FileFormatError(f"shard of rank {shard.rank}, layer {k}: {error}") from error
    try:
        return Shard(shard.rank, shard.workers, layers)
    except ValueError as error:
        raise FileFormatError(f"shard of rank {shard.rank}: {error}") from error
