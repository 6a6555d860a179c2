"""The names of the Rust extension; no other module imports it directly."""

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray

from fsd_inference._kernels import (
    Accepted,
    LayerKernel,
    NonFiniteError,
    RankState,
    SerialState,
    Shard,
    ShardLayer,
    WireRangeError,
    activate,
    block_shape,
    decode_block,
    encode_block,
    round_to_wire,
    seal,
    simd_path,
    simd_paths,
)

Array = TypeVar("Array", bound=NDArray[Any])
ActivationName = Literal[
    "identity",
    "relu",
    "clipped_relu",
    "clip",
    "leaky_relu",
    "prelu",
    "sigmoid",
    "tanh",
    "gelu",
    "gelu_tanh",
    "silu",
    "hard_swish",
    "hard_sigmoid",
    "elu",
    "softplus",
]
KernelGroup = tuple[int, str, str, Sequence[float]]
"""Consecutive rows of a layer: their number, "sum" or "max", and kind and parameters of their activation."""

__all__ = [
    "Accepted",
    "ActivationName",
    "KernelGroup",
    "LayerKernel",
    "NonFiniteError",
    "RankState",
    "SerialState",
    "Shard",
    "ShardLayer",
    "WireRangeError",
    "activate",
    "block_shape",
    "decode_block",
    "encode_block",
    "read_only",
    "round_to_wire",
    "seal",
    "simd_path",
    "simd_paths",
]


def read_only(array: Array) -> Array:
    """Return a read-only view: arrays that the kernels borrow must not change after they were validated."""
    view = array.view()
    view.setflags(write=False)
    return view
