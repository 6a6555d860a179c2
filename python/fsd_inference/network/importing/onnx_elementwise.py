"""ONNX operators on each element: arithmetic, activations, and activations that several nodes compute together.

Exporters write some activations as several nodes, such as x * 0.5 * (1 + erf(x / sqrt 2)) for gelu. These are known by
their values: each tensor has its curves, the functions that it is of earlier tensors, at a number of points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from fsd_inference.kernels import ActivationName
from fsd_inference.network.activation import Activation
from fsd_inference.network.importing.lowering import Refs, clamp
from fsd_inference.network.importing.onnx_constants import ARITHMETIC
from fsd_inference.network.importing.onnx_node import AGAIN, POINTS, Curve, Node, Tensor, read
from fsd_inference.network.importing.problems import UnsupportedError

_CLOSE = 2e-5  # of values in float32 up to about 10
_MOST_CURVES = 8
_DIGITS = 6
_PLAIN: dict[str, ActivationName] = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "HardSwish": "hard_swish",
}
_RECOGNIZED: tuple[ActivationName, ...] = ("gelu", "gelu_tanh", "silu", "hard_swish", "sigmoid")

_UNARY: dict[str, Callable[[Curve], Curve]] = {"Erf": special.erf, "Exp": np.exp}

_NOT_A_SUM = (
    "combines two tensors that depend on the samples by neither a weighted sum nor a maximum, and not to an activation "
    "that is known; replace it"
)


def _of_attributes(kind: str, attributes: dict[str, Any]) -> Activation:
    if kind == "Gelu":
        return Activation("gelu_tanh" if attributes["approximate"] == b"tanh" else "gelu")
    if kind == "Swish":
        if attributes["alpha"] != 1:
            raise UnsupportedError("has an alpha other than 1; replace it by Mul and Sigmoid with alpha = 1")
        return Activation("silu")
    if kind == "LeakyRelu":
        return Activation("leaky_relu", attributes["alpha"])
    if kind == "Elu":
        return Activation("elu", attributes["alpha"])
    if kind == "HardSigmoid":
        return Activation("hard_sigmoid", attributes["alpha"], attributes["beta"])
    return Activation(_PLAIN[kind])


def activate(node: Node) -> list[Tensor]:
    """Apply the activation that the operator names."""
    return [_activated(node, node.tensor(), _of_attributes(node.kind, node.attributes))]


def _activated(node: Node, tensor: Tensor, activation: Activation) -> Tensor:
    curves = [(base, _at(activation, values)) for base, values in tensor.views()]
    refs = None if tensor.refs is None else node.graph.activate(tensor.refs, activation, node.label)
    return _made(node, refs, curves, tensor.unsupported)


def _at(activation: Activation, values: Curve) -> Curve:
    return activation.apply(values.astype(np.float32)).astype(np.float64)


def prelu(node: Node) -> list[Tensor]:
    """Apply prelu, whose slopes are constant."""
    refs = node.refs()
    slopes = node.broadcast(node.required(1), refs.shape)
    return [Tensor(node.graph.activate(refs, Activation("prelu"), node.label, slopes=slopes))]


def scaled_elu(node: Node) -> list[Tensor]:
    """Apply Selu or Celu, which are an elu between two scalings."""
    alpha = float(node.attributes["alpha"])
    refs = node.refs()
    if node.kind == "Celu":
        if alpha <= 0:
            raise UnsupportedError(f"has the alpha {alpha:g}, which must be positive; replace it by Elu")
        inner = node.graph.scale(refs, 1 / alpha, 0.0, node.label)
        outer, activation = alpha, Activation("elu", 1.0)
    else:
        inner, outer, activation = refs, float(node.attributes["gamma"]), Activation("elu", alpha)
    return [Tensor(node.graph.scale(node.graph.activate(inner, activation, node.label), outer, 0.0, node.label))]


def clip(node: Node) -> list[Tensor]:
    """Limit values to a range."""
    if node.opset < 11:
        low, high = node.attributes["min"], node.attributes["max"]
    else:
        given = (node.constant(1), node.constant(2))
        low, high = (
            default if value is None else float(np.float32(value.item()))
            for value, default in zip(given, (-math.inf, math.inf), strict=True)
        )
    return [_clamped(node, node.tensor(), low, high)]


def _clamped(node: Node, tensor: Tensor, low: float, high: float) -> Tensor:
    if not low < high:
        raise UnsupportedError("makes all values the same; remove it, and what depends on it")
    return _activated(node, tensor, clamp(low, high))


def arithmetic(node: Node) -> list[Tensor]:
    """Add, subtract, multiply or divide two values."""
    left, right = node.given(0), node.given(1)
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return [_of_tensors(node, left, right)]
    if isinstance(left, Tensor):
        return [_of_constant(node, left, node.required(1), reverse=False)]
    return [_of_constant(node, node.tensor(1), node.required(0), reverse=True)]


def _of_constant(node: Node, tensor: Tensor, value: NDArray[Any], *, reverse: bool) -> Tensor:
    kind, compute = node.kind, ARITHMETIC[node.kind]
    curves: list[tuple[Tensor, Curve]] = []
    if _is_scalar(node, value, tensor):
        number = float(value.item())
        curves = [
            (base, compute(number, values) if reverse else compute(values, number)) for base, values in tensor.views()
        ]
    if tensor.refs is None:
        return _made(node, None, curves, tensor.unsupported)
    if kind == "Div" and reverse:
        return _made(node, None, curves, (node.label, f"divides a constant by the samples; {AGAIN} without"))
    constant = node.broadcast(value, tensor.refs.shape)
    maps: dict[str, tuple[ArrayLike, ArrayLike]] = {
        "Add": (1.0, constant),
        "Sub": (-1.0, constant) if reverse else (1.0, -constant),
        "Mul": (constant, 0.0),
        "Div": (1 / constant, 0.0),
    }
    factor, shift = maps[kind]
    refs = np.broadcast_to(tensor.refs, np.broadcast_shapes(tensor.refs.shape, constant.shape))
    same = refs.shape == tensor.refs.shape
    return _made(node, node.graph.scale(refs, factor, shift, node.label), curves if same else [])


def _is_scalar(node: Node, value: NDArray[Any], tensor: Tensor) -> bool:
    """Return whether a constant is one number; UnsupportedError if it would put an axis in front of the samples."""
    of_samples = tensor if tensor.refs is not None else next((base for base, _ in tensor.views()), None)
    if value.size == 1 and of_samples is not None:
        node.broadcast(value, read(of_samples).shape)
    return value.size == 1


def _of_tensors(node: Node, left: Tensor, right: Tensor) -> Tensor:
    compute = ARITHMETIC[node.kind]
    curves = [
        (base, compute(values, others))
        for (base, values), (other, others) in product(left.views(), right.views())
        if base is other
    ]
    if left.refs is None or right.refs is None:
        return _made(node, None, curves, (left if left.refs is None else right).unsupported)
    _check_ranks(left.refs, right.refs)
    if node.kind in {"Add", "Sub"}:
        sign = 1.0 if node.kind == "Add" else -1.0
        return _made(node, node.graph.combine([(1.0, left.refs), (sign, right.refs)], node.label), curves)
    return _made(node, None, curves, (node.label, _NOT_A_SUM))


def _check_ranks(*tensors: Refs) -> None:
    if len({refs.ndim for refs in tensors}) != 1:
        raise UnsupportedError(f"has inputs with different numbers of axes; {AGAIN}")
    try:
        np.broadcast_shapes(*(refs.shape for refs in tensors))
    except ValueError:
        raise UnsupportedError(f"has inputs whose shapes do not fit each other; {AGAIN}") from None


def function(node: Node) -> list[Tensor]:
    """Compute a function that no layer computes, but that can be part of an activation."""
    reason = f"is not supported, except as part of {', '.join(_RECOGNIZED)}; replace it by an activation that is"
    tensor = node.tensor()
    if node.kind == "Pow":
        exponent = node.required(1)
        curves = [(base, values ** float(exponent.item())) for base, values in tensor.views() if exponent.size == 1]
    else:
        curves = [(base, _UNARY[node.kind](values)) for base, values in tensor.views()]
    return [_made(node, None, curves, tensor.unsupported if tensor.refs is None else (node.label, reason))]


def _made(
    node: Node, refs: Refs | None, curves: list[tuple[Tensor, Curve]], unsupported: tuple[str, str] = ("", "")
) -> Tensor:
    """Return a tensor; if no layer computes it, but its curve is that of an activation, apply that."""
    kept = curves[-_MOST_CURVES:]
    if refs is not None:
        return Tensor(refs, kept)
    for base, values in reversed(kept):
        for kind in _RECOGNIZED:
            activation = Activation(kind)
            curve = _at(activation, POINTS)
            factor = float(f"{values[-1] / curve[-1]:.{_DIGITS}g}")
            if np.abs(values - factor * curve).max() <= _CLOSE * max(1.0, abs(factor)):
                made = node.graph.activate(read(base), activation, node.label)
                if factor != 1:
                    made = node.graph.scale(made, factor, 0.0, node.label)
                return Tensor(made, kept)
    return Tensor(None, kept, unsupported)


def negative(node: Node) -> list[Tensor]:
    """Negate values."""
    tensor = node.tensor()
    curves = [(base, -values) for base, values in tensor.views()]
    if tensor.refs is None:
        return [_made(node, None, curves, tensor.unsupported)]
    return [_made(node, node.graph.scale(tensor.refs, -1.0, 0.0, node.label), curves)]


def absolute(node: Node) -> list[Tensor]:
    """Compute absolute values, the larger of x and -x."""
    refs = node.refs()
    return [Tensor(node.graph.maximum([refs, node.graph.scale(refs, -1.0, 0.0, node.label)], node.label))]


def extreme(node: Node) -> list[Tensor]:
    """Compute the largest or smallest of several values."""
    tensors = [value for value in node.inputs if isinstance(value, Tensor)]
    constants = [node.required(k) for k, value in enumerate(node.inputs) if not isinstance(value, Tensor)]
    largest = node.kind == "Max"
    if len(tensors) == 1 and all(_is_scalar(node, value, tensors[0]) for value in constants):
        bounds = [float(value.item()) for value in constants]
        low, high = (
            (max(bounds, default=-math.inf), math.inf) if largest else (-math.inf, min(bounds, default=math.inf))
        )
        return [_clamped(node, tensors[0], low, high)]
    sign = 1.0 if largest else -1.0
    terms = _terms(node)
    if not largest:
        terms = [node.graph.scale(refs, sign, 0.0, node.label) for refs in terms]
    made = node.graph.maximum(terms, node.label)
    return [Tensor(made if largest else node.graph.scale(made, sign, 0.0, node.label))]


def total(node: Node) -> list[Tensor]:
    """Compute the sum or the mean of several values."""
    terms = _terms(node)
    each = 1 / len(terms) if node.kind == "Mean" else 1.0
    return [Tensor(node.graph.combine([(each, refs) for refs in terms], node.label))]


def _terms(node: Node) -> Sequence[Refs]:
    """Return the inputs as tensors that can be broadcast."""
    tensors = [read(value) for value in node.inputs if isinstance(value, Tensor)]
    _check_ranks(*tensors)
    shape = np.broadcast_shapes(*(refs.shape for refs in tensors))
    constants = [
        node.graph.constant(node.broadcast(node.required(k), shape))
        for k, value in enumerate(node.inputs)
        if not isinstance(value, Tensor)
    ]
    return [*tensors, *constants]


ELEMENTWISE: dict[str, Callable[[Node], list[Tensor]]] = {
    **dict.fromkeys(("Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu"), activate),
    **dict.fromkeys(("Sigmoid", "Softplus", "Swish", "Tanh"), activate),
    **dict.fromkeys(ARITHMETIC, arithmetic),
    **dict.fromkeys((*_UNARY, "Pow"), function),
    **dict.fromkeys(("Celu", "Selu"), scaled_elu),
    **dict.fromkeys(("Max", "Min"), extreme),
    **dict.fromkeys(("Mean", "Sum"), total),
    "Abs": absolute,
    "Clip": clip,
    "Neg": negative,
    "PRelu": prelu,
}
