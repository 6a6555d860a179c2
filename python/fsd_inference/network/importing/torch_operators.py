"""What the ATen operators of PyTorch compute for one sample, as operations on a `Graph`.

Each function gets a `Call`, whose tensors have no axis of samples: axis 1 of the operator is axis 0 here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.activation import Activation
from fsd_inference.network.importing.lowering import Refs, Windows
from fsd_inference.network.importing.lowering.compose import clamp
from fsd_inference.network.importing.problems import UnsupportedError
from fsd_inference.network.importing.torch_call import MIXES, UNEQUAL, Call, as_array
from fsd_inference.network.importing.torch_moves import MOVES

Result: TypeAlias = "Refs | tuple[Refs, ...]"

_DIVIDES = "divides by the samples, or rounds; only a division by constants can be imported"
_NORM = "needs the mean and variance of each sample; use batch normalization"
_LARGE_SOFTPLUS = 16.0  # above, softplus(x) is x in float32


def _operands(call: Call) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return both operands in the shape of the result: references of type int64, constants of type float64."""
    shape = call.shapes[0]

    def fitted(value: Any) -> NDArray[Any]:
        if isinstance(value, np.ndarray):
            if value.ndim != len(shape):
                raise UnsupportedError(MIXES)
            return np.broadcast_to(value, shape)
        array = as_array(value)
        if array.ndim > len(shape):
            if (array != array[:1]).any():
                raise UnsupportedError(UNEQUAL)
            array = array[0]
        return np.broadcast_to(array, shape)

    return fitted(call["self"]), fitted(call["other"])


def _is_refs(array: NDArray[Any]) -> bool:
    return array.dtype == np.int64


def _add(call: Call) -> Refs:
    first, second = _operands(call)
    alpha = float(call.arguments.get("alpha", 1))
    one, other = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[call.name]
    if not _is_refs(second):
        return call.graph.scale(first, one, other * second, call.where)
    if not _is_refs(first):
        return call.graph.scale(second, other, one * first, call.where)
    return call.graph.combine([(one, first), (other, second)], call.where)


def _mul(call: Call) -> Refs:
    first, second = _operands(call)
    if not _is_refs(second):
        return call.graph.scale(first, second, 0.0, call.where)
    if not _is_refs(first):
        return call.graph.scale(second, first, 0.0, call.where)
    for value, gate in ((first, second), (second, first)):  # x * sigmoid(x), which decomposing makes of silu
        found = call.graph.activated(gate)
        if found is not None and found[0] == Activation("sigmoid") and np.array_equal(found[1], value):
            return call.graph.activate(value, Activation("silu"), call.where)
    raise UnsupportedError("multiplies two tensors that depend on the samples; only x * sigmoid(x) can be imported")


def _div(call: Call) -> Refs:
    first, second = _operands(call)
    if not _is_refs(first) or _is_refs(second) or call.arguments.get("rounding_mode") is not None:
        raise UnsupportedError(_DIVIDES)
    with np.errstate(divide="ignore"):  # a layer refuses what is not finite, with its position
        return call.graph.scale(first, 1 / second, 0.0, call.where)


def _neg(call: Call) -> Refs:
    return call.graph.scale(call.tensor("self"), -1.0, 0.0, call.where)


def _maximum(call: Call) -> Refs:
    operands = [part if _is_refs(part) else call.graph.constant(part) for part in _operands(call)]
    return call.graph.maximum(operands, call.where)


def _linear(call: Call) -> Refs:
    return call.graph.product(_matrix(call, "weight"), call.tensor("input"), call.optional("bias", 0.0), call.where)


def _addmm(call: Call) -> Refs:
    if call.name == "mm":
        return call.graph.product(_matrix(call, "mat2").T, call.tensor("self"), 0.0, call.where)
    bias = call.constant("self")
    if bias.ndim > 1:
        if (bias != bias[:1]).any():
            raise UnsupportedError(UNEQUAL)
        bias = bias[0]
    weights = float(call["alpha"]) * _matrix(call, "mat2").T
    return call.graph.product(weights, call.tensor("mat1"), float(call["beta"]) * bias, call.where)


def _matmul(call: Call) -> Refs:
    first, second = call["self"], call["other"]
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        raise UnsupportedError("multiplies two tensors that depend on the samples, as attention does")
    if isinstance(first, np.ndarray):
        weights = as_array(second)
        if weights.ndim == 1:
            return call.graph.product(weights[None], first, 0.0, call.where)[..., 0]
        if weights.ndim == 2:
            return call.graph.product(weights.T, first, 0.0, call.where)
    elif second.ndim >= 2 and first.dim() == 2:
        return call.graph.product(as_array(first), second.swapaxes(-1, -2), 0.0, call.where).swapaxes(-1, -2)
    raise UnsupportedError("multiplies by a constant that is no matrix, or mixes samples; use one matrix for all")


def _matrix(call: Call, name: str) -> sparse.csr_array:
    matrix = call.constant(name)
    if matrix.ndim != 2:
        raise UnsupportedError(f"has a {name} that is not a matrix")
    return sparse.csr_array(matrix)


def _convolution(call: Call) -> Refs:
    if call["transposed"]:
        raise UnsupportedError("is a transposed convolution, which cannot be imported; resize, then convolve")
    refs, weights = call.tensor("input"), call.constant("weight")
    pads = [(size, size) for size in call["padding"]]
    windows = Windows.of(weights.shape[2:], call["stride"], pads, call["dilation"])
    bias = call.optional("bias", 0.0)
    return call.graph.convolve(refs, weights, bias, windows, call.where, groups=call["groups"])


def _normalize(call: Call) -> tuple[Refs, ...]:
    refs = call.tensor("input")
    mean, variance = call.constant("running_mean"), call.constant("running_var")
    factor = call.optional("weight", 1.0) / np.sqrt(variance + float(call["eps"]))
    shift = call.optional("bias", 0.0) - mean * factor
    channel = (-1, *[1] * (refs.ndim - 1))
    made = call.graph.scale(refs, factor.reshape(channel), shift.reshape(channel), call.where)
    return made, refs[:0], refs[:0]


def _pool(call: Call) -> Result:
    refs = call.tensor("self")
    kernel = call["kernel_size"]
    rank = refs.ndim - 1

    def each(name: str) -> list[int]:
        given = list(call.arguments.get(name) or [])
        return given * rank if len(given) == 1 else given

    kernel, strides, pads = each("kernel_size"), each("stride") or each("kernel_size"), each("padding")
    windows = Windows.of(
        kernel, strides, [(pad, pad) for pad in pads], each("dilation"), ceil_mode=bool(call["ceil_mode"])
    )
    if call.name.startswith("max"):
        made = call.graph.pool(refs, windows, "max", call.where)
        return (made, refs[:0]) if call.name.endswith("with_indices") else made
    if call.arguments.get("divisor_override") is not None:
        raise UnsupportedError("divides by a number of its own (divisor_override); leave that out")
    padding = bool(call["count_include_pad"])
    return call.graph.pool(refs, windows, "mean", call.where, count_padding=padding)


def _adaptive_mean(call: Call) -> Refs:
    refs = call.tensor("self")
    matrix: Any = sparse.eye_array(refs.shape[0])
    for inputs, outputs in zip(refs.shape[1:], call.shapes[0][1:], strict=True):
        matrix = sparse.kron(matrix, _adaptive_axis(inputs, outputs))
    return call.graph.affine(matrix, refs, 0.0, call.where).reshape(call.shapes[0])


def _adaptive_axis(inputs: int, outputs: int) -> sparse.csr_array:
    """Return the matrix of an adaptive mean along one axis."""
    matrix = np.zeros((outputs, inputs))
    for k in range(outputs):
        start, end = k * inputs // outputs, -(-(k + 1) * inputs // outputs)
        matrix[k, start:end] = 1 / (end - start)
    return sparse.csr_array(matrix)


def _adaptive_max(call: Call) -> tuple[Refs, ...]:
    refs = call.tensor("self")
    _, *outputs = call.shapes[0]
    sizes = list(zip(refs.shape[1:], outputs, strict=True))
    if any(inputs % made for inputs, made in sizes):
        raise UnsupportedError("has windows of different sizes; choose sizes that divide those of its input")
    kernel = [inputs // made for inputs, made in sizes]
    return call.graph.pool(refs, Windows.of(kernel, kernel), "max", call.where), refs[:0]


def _reduce(call: Call) -> Refs:
    refs = call.tensor("self")
    kind = {"mean": "mean", "sum": "sum", "amax": "max"}[call.name]
    dims = call.arguments.get("dim")
    if not dims:
        raise UnsupportedError(MIXES)
    axes = [call.axis(dim, refs.ndim) for dim in dims]
    made = call.graph.reduce(refs, axes, kind, call.where)  # type: ignore[arg-type]
    return made.reshape(call.shapes[0])


def _bounded(call: Call) -> Refs:
    ranges: dict[str, tuple[Any, Any]] = {"relu": (0, None), "relu6": (0, 6)}
    low, high = ranges.get(call.name) or [
        next((call[name] for name in names if name in call.arguments), None)
        for names in (("min", "min_val"), ("max", "max_val"))
    ]
    if isinstance(low, np.ndarray) or isinstance(high, np.ndarray):
        raise UnsupportedError("has bounds that depend on the samples; they must be numbers")
    lower, upper = (limit if bound is None else float(bound) for bound, limit in ((low, -math.inf), (high, math.inf)))
    return call.graph.activate(call.tensor("self"), clamp(lower, upper), call.where)


def _leaky_relu(call: Call) -> Refs:
    slope = float(call["negative_slope"])
    return call.graph.activate(call.tensor("self"), Activation("leaky_relu", slope), call.where)


def _prelu(call: Call) -> Refs:
    refs, slopes = call.tensor("self"), call.constant("weight").ravel()
    if slopes.size == 1:
        return call.graph.activate(refs, Activation("leaky_relu", float(slopes[0])), call.where)
    each = slopes.reshape(-1, *[1] * (refs.ndim - 1))
    return call.graph.activate(refs, Activation("prelu"), call.where, slopes=each)


def _elu(call: Call) -> Refs:
    if call.name == "celu":
        alpha = float(call["alpha"])
        scale, slope = 1.0, 1 / alpha
    else:
        alpha, scale, slope = (float(call[name]) for name in ("alpha", "scale", "input_scale"))
    if slope <= 0:
        raise UnsupportedError(f"scales its inputs by {slope:g}, which must be positive; replace it by ELU")
    refs = call.tensor("self")
    if slope != 1:  # elu of slope * x, divided by slope
        refs = call.graph.scale(refs, slope, 0.0, call.where)
    made = call.graph.activate(refs, Activation("elu", alpha * slope), call.where)
    return made if scale == slope else call.graph.scale(made, scale / slope, 0.0, call.where)


def _gelu(call: Call) -> Refs:
    gelu = Activation("gelu_tanh") if call["approximate"] == "tanh" else Activation("gelu")
    return call.graph.activate(call.tensor("self"), gelu, call.where)


def _softplus(call: Call) -> Refs:
    beta, threshold = float(call["beta"]), float(call["threshold"])
    if beta <= 0 or threshold < _LARGE_SOFTPLUS:
        raise UnsupportedError(
            f"has the beta {beta:g} and the threshold {threshold:g}; beta must be positive, and the threshold at least "
            f"{_LARGE_SOFTPLUS:g}"
        )
    refs = call.tensor("self")
    if beta == 1:
        return call.graph.activate(refs, Activation("softplus"), call.where)
    scaled = call.graph.scale(refs, beta, 0.0, call.where)
    return call.graph.scale(call.graph.activate(scaled, Activation("softplus"), call.where), 1 / beta, 0.0, call.where)


def _plain(activation: Activation) -> Callable[[Call], Refs]:
    return lambda call: call.graph.activate(call.tensor("self"), activation, call.where)


def _refused(reason: str) -> Callable[[Call], Refs]:
    def refuse(_: Call) -> Refs:
        raise UnsupportedError(reason)

    return refuse


OPERATORS: Mapping[str, Callable[[Call], Result]] = {
    **MOVES,
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    "mul": _mul,
    "div": _div,
    "neg": _neg,
    "maximum": _maximum,
    "linear": _linear,
    **dict.fromkeys(("addmm", "mm"), _addmm),
    "matmul": _matmul,
    "convolution": _convolution,
    "_native_batch_norm_legit_no_training": _normalize,
    **dict.fromkeys(
        (
            *("max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices"),
            *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
        ),
        _pool,
    ),
    **dict.fromkeys(
        (
            *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
            *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
        ),
        _adaptive_mean,
    ),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"), _adaptive_max),
    **dict.fromkeys(("mean", "sum", "amax"), _reduce),
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"), _bounded),
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    **dict.fromkeys(("elu", "celu"), _elu),
    "gelu": _gelu,
    "softplus": _softplus,
    "hardsigmoid": _plain(Activation("hard_sigmoid", 1 / 6, 0.5)),
    "hardswish": _plain(Activation("hard_swish")),
    "sigmoid": _plain(Activation("sigmoid")),
    "silu": _plain(Activation("silu")),
    "tanh": _plain(Activation("tanh")),
    "_native_batch_norm_legit": _refused("normalizes by the statistics of the batch, which " + MIXES),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "group_norm", "native_group_norm"), _refused(_NORM)),
    "instance_norm": _refused(_NORM),
    "reciprocal": _refused(_DIVIDES),
}
