"""The only door to the Rust extension."""

from typing import Literal

from fsd_inference._kernels import (
    Accepted,
    LayerKernel,
    NonFiniteError,
    RankState,
    SerialState,
    Shard,
    ShardLayer,
    decode_block,
    encode_block,
    seal,
    simd_path,
    simd_paths,
)

ActivationName = Literal["identity", "relu", "clipped_relu"]

__all__ = [
    "Accepted",
    "ActivationName",
    "LayerKernel",
    "NonFiniteError",
    "RankState",
    "SerialState",
    "Shard",
    "ShardLayer",
    "decode_block",
    "encode_block",
    "seal",
    "simd_path",
    "simd_paths",
]
