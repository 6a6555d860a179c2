"""From a shard as it is stored to one that the kernels compute with."""

from __future__ import annotations

from typing import cast

from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import ActivationName, LayerKernel, Shard, ShardLayer
from fsd_inference.partition.shard import RankShard


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
                part.indptr,
                part.indices,
                part.values,
                part.columns,
                part.bias,
                cast("ActivationName", part.activation),
                part.clip,
                part.zero_preserving,
            )
            layers.append(ShardLayer(kernel, part.rows, part.column_source, part.column_row, part.receives, part.sends))
        except ValueError as error:
            raise FileFormatError(f"shard of rank {shard.rank}, layer {k}: {error}") from error
    try:
        return Shard(shard.rank, shard.workers, layers)
    except ValueError as error:
        raise FileFormatError(f"shard of rank {shard.rank}: {error}") from error
