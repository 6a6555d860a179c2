"""The only door to the Rust extension."""

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

__all__ = [
    "Accepted",
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
