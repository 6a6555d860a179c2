"""From a shard as it is stored to one that the kernels compute with."""

from __future__ import annotations

from typing import cast

from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import ActivationName, LayerKernel, Shard, ShardLayer, read_only
from fsd_inference.partitioning.shard import RankShard


def kernel_shard(shard: RankShard) -> Shard:
    """Return the kernels' form of a shard, which borrows its arrays.

    Raises
    ------
    FileFormatError
        The kernels find that the shard contradicts itself.
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
                cast("ActivationName", part.activation),
                part.clip,
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
