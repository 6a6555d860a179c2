"""ONNX operators that compute weighted sums and maxima over several elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.importing.lowering import Refs, Windows
from fsd_inference.network.importing.onnx_node import AGAIN, Node, Tensor, feature_axes
from fsd_inference.network.importing.problems import UnsupportedError
from fsd_inference.network.sparse_arrays import csr_of_type, row_blocks

_TWO_TENSORS = (
    "multiplies two tensors that depend on the samples, as attention does, which is not a weighted sum; only products "
    "with constants can be imported"
)


def gemm(node: Node) -> list[Tensor]:
    """Multiply vectors by a constant matrix, and add a constant."""
    if node.attributes["transA"]:
        raise UnsupportedError("transposes its samples (transA); export it without")
    if isinstance(node.given(1), Tensor):
        raise UnsupportedError(_on_right(node))
    refs, weights, added = node.refs(), _matrix(node, 1), node.constant(2)
    if refs.ndim != 1:
        raise UnsupportedError("does not take samples x features; flatten them first")
    weights = weights if node.attributes["transB"] else sparse.csr_array(weights.T)
    _check_width(weights, refs.shape[0])
    if node.attributes["alpha"] != 1:
        weights = weights.astype(np.float64) * float(node.attributes["alpha"])
    bias: NDArray[np.float64] | float = 0.0
    if added is not None:
        outputs = (weights.shape[0],)
        bias = node.broadcast(added, outputs) * float(node.attributes["beta"])
        if np.broadcast_shapes(bias.shape, outputs) != outputs:
            raise UnsupportedError(f"adds a constant of {bias.size:,} values to {outputs[0]:,} outputs; {AGAIN}")
    return [Tensor(node.graph.product(weights, refs, bias, node.label))]


def matmul(node: Node) -> list[Tensor]:
    """Multiply by a constant matrix, from the right or, within a sample, from the left."""
    if isinstance(node.given(0), Tensor):
        if isinstance(node.given(1), Tensor):
            raise UnsupportedError(_TWO_TENSORS)
        refs, weights = node.refs(), _matrix(node, 1)
        weights = sparse.csr_array(weights.T)
        _check_width(weights, refs.shape[-1])
        return [Tensor(node.graph.product(weights, refs, 0.0, node.label))]
    refs, weights = node.refs(1), _matrix(node, 0)
    if refs.ndim < 2:
        raise UnsupportedError(_on_right(node))
    columns = refs.swapaxes(-1, -2)
    _check_width(weights, columns.shape[-1])
    return [Tensor(node.graph.product(weights, columns, 0.0, node.label).swapaxes(-1, -2))]


def _on_right(node: Node) -> str:
    left = node.given(0)
    return (
        _TWO_TENSORS
        if isinstance(left, Tensor)
        else "has the constant matrix on the left; put it on the right, transposed"
    )


def _matrix(node: Node, index: int) -> sparse.csr_array:
    """Return an input that must be a constant matrix, as sparse rows x columns."""
    value = node.given(index)
    if value is None or isinstance(value, Tensor) or value.ndim != 2 or 0 in value.shape or value.dtype.kind != "f":
        side = "right" if index else "left"
        raise UnsupportedError(f"does not have a matrix of floats on the {side}; export the layer as MatMul or Gemm")
    if value.dtype == np.float16:  # which SciPy lacks
        value = value.astype(np.float32)
    if isinstance(value, sparse.csr_array):
        return value
    node.graph.reserve(sum(int(np.count_nonzero(block != 0)) for block in row_blocks(value)))
    return csr_of_type(value)


def _check_width(weights: sparse.csr_array, features: int) -> None:
    if weights.shape[1] != features:
        raise UnsupportedError(
            f"takes {weights.shape[1]:,} features, but the node before it makes {features:,}; {AGAIN}"
        )


def convolve(node: Node) -> list[Tensor]:
    """Convolve channels with constant filters."""
    if isinstance(node.given(1), Tensor):
        raise UnsupportedError(_TWO_TENSORS)
    refs, filters, bias = node.refs(), node.required(1), node.constant(2)
    if refs.ndim < 2 or filters.dtype.kind != "f" or filters.ndim != refs.ndim + 1:
        raise UnsupportedError(f"has filters that do not fit its input; {AGAIN}")
    kernel = node.attributes.get("kernel_shape", list(filters.shape[2:]))
    windows = _windows(node, refs, kernel)
    added = 0.0 if bias is None else node.broadcast(bias, (filters.shape[0],))
    groups = int(node.attributes["group"])
    return [Tensor(node.graph.convolve(refs, filters, added, windows, node.label, groups=groups))]


def pool(node: Node) -> list[Tensor]:
    """Compute the largest value or the mean of windows."""
    node.single_output()
    refs = node.refs()
    windows = _windows(node, refs, node.attributes["kernel_shape"])
    count_padding = bool(node.attributes.get("count_include_pad", 0))
    kind: Literal["max", "mean"] = "max" if node.kind == "MaxPool" else "mean"
    return [Tensor(node.graph.pool(refs, windows, kind, node.label, count_padding=count_padding))]


def _windows(node: Node, refs: Refs, kernel: Sequence[int]) -> Windows:
    attributes, axes = node.attributes, refs.ndim - 1
    strides = attributes.get("strides", [1] * axes)
    dilations = attributes.get("dilations", [1] * axes)
    given = attributes.get("pads", [0] * 2 * axes)
    if not len(kernel) == len(strides) == len(dilations) == len(given) // 2 == axes >= 1:
        raise UnsupportedError(f"has windows of another number of axes than its input; {AGAIN}")
    if min(*kernel, *strides, *dilations) < 1:
        raise UnsupportedError(f"has a window, stride or dilation that is not positive; {AGAIN}")
    pads = list(zip(given[:axes], given[axes:], strict=True))
    padding = attributes["auto_pad"]
    if padding == b"VALID":
        pads = [(0, 0)] * axes
    elif padding in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = []
        for size, width, stride, dilation in zip(refs.shape[1:], kernel, strides, dilations, strict=True):
            missing = max(0, (-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size)
            less, more = missing // 2, missing - missing // 2
            pads.append((less, more) if padding == b"SAME_UPPER" else (more, less))
    return Windows.of(kernel, strides, pads, dilations, ceil_mode=bool(attributes.get("ceil_mode", 0)))


def pool_all(node: Node) -> list[Tensor]:
    """Compute the largest value or the mean of each channel."""
    refs = node.refs()
    if refs.ndim < 2:
        raise UnsupportedError(f"does not take channels with spatial axes; {AGAIN}")
    kind: Literal["max", "mean"] = "max" if node.kind == "GlobalMaxPool" else "mean"
    return [Tensor(node.graph.reduce(refs, range(1, refs.ndim), kind, node.label))]


def reduce(node: Node) -> list[Tensor]:
    """Compute the sum, the mean, the largest or the smallest value over axes."""
    refs = node.refs()
    axes = node.axes(1, 13 if node.kind == "ReduceSum" else 18)
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return [node.tensor()]
    chosen = feature_axes(axes if axes else range(refs.ndim + 1), refs.ndim + 1)
    if node.kind == "ReduceMin":
        made = node.graph.reduce(node.graph.scale(refs, -1.0, 0.0, node.label), chosen, "max", node.label)
        made = node.graph.scale(made, -1.0, 0.0, node.label)
    else:
        kinds: dict[str, Literal["sum", "mean", "max"]] = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}
        made = node.graph.reduce(refs, chosen, kinds[node.kind], node.label)
    return [Tensor(made if node.attributes["keepdims"] else made.squeeze(tuple(chosen)))]


def normalize(node: Node) -> list[Tensor]:
    """Scale and shift each channel by the statistics of the training."""
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1) or node.outputs != 1:
        raise UnsupportedError("is in training mode, or not one value per channel; export it for inference")
    refs = node.refs()
    given = [node.required(k).astype(np.float64) for k in range(1, 5)]
    channels = refs.shape[0]
    if any(value.shape != (channels,) for value in given):
        raise UnsupportedError(f"does not have scale, bias, mean and variance of {channels:,} channels; {AGAIN}")
    scale, bias, mean, variance = (value.reshape(-1, *[1] * (refs.ndim - 1)) for value in given)
    factor = scale / np.sqrt(variance + float(node.attributes["epsilon"]))
    return [Tensor(node.graph.scale(refs, factor, bias - mean * factor, node.label))]


SUMS: dict[str, Callable[[Node], list[Tensor]]] = {
    **dict.fromkeys(("AveragePool", "MaxPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), pool_all),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), reduce),
    "BatchNormalization": normalize,
    "Conv": convolve,
    "Gemm": gemm,
    "MatMul": matmul,
}
