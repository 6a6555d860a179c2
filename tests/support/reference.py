"""Layers computed with SciPy, the slow and obvious way."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from fsd_inference.network import Layer, RowGroup

Function = Callable[..., NDArray[np.float64]]

FUNCTIONS: dict[str, Function] = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "clipped_relu": lambda z, upper: np.clip(z, 0, upper),
    "clip": np.clip,
    "leaky_relu": lambda z, slope: np.where(z < 0, slope * z, z),
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "gelu": lambda z: z * special.ndtr(z),
    "gelu_tanh": lambda z: z * special.expit(2 * np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)),
    "silu": lambda z: z * special.expit(z),
    "hard_swish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hard_sigmoid": lambda z, alpha, beta: np.clip(alpha * z + beta, 0, 1),
    "elu": lambda z, alpha: np.where(z < 0, alpha * np.expm1(np.minimum(z, 0)), z),
    "softplus": lambda z: np.logaddexp(0, z),
}
"""Each activation but "prelu" in 64-bit."""


PARAMETERS: dict[str, list[float]] = {
    "clipped_relu": [6.0],
    "clip": [-1.25, 3.5],
    "leaky_relu": [0.01],
    "hard_sigmoid": [0.2, 0.5],
    "elu": [1.5],
}
"""Some, for the activations that take any."""


def layer_output(layer: Layer, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return the outputs of a layer in 64-bit; `x` is inputs x samples."""
    parts = []
    weights, bias, start = layer.weights.astype(np.float64), np.broadcast_to(layer.bias, layer.shape[0]), 0
    for group in layer.groups:
        rows = slice(start, start + group.rows)
        start = rows.stop
        if group.reduce == "max":
            inputs = [x[weights[[row]].indices].max(axis=0) for row in range(rows.start, rows.stop)]
            acc = np.array(inputs, np.float64).reshape(group.rows, x.shape[1])
        else:
            acc = weights[rows] @ x
        z = acc + bias[rows, None].astype(np.float64)
        parts.append(_activated(layer, group, rows, z))
    return np.concatenate(parts)


def _activated(layer: Layer, group: RowGroup, rows: slice, z: NDArray[np.float64]) -> NDArray[np.float64]:
    if group.activation.kind == "prelu":
        assert layer.slopes is not None
        return np.where(z < 0, layer.slopes[rows, None] * z, z)
    return FUNCTIONS[group.activation.kind](z, *group.activation.parameters)


def ulps(found: NDArray[np.float32], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the errors of float32 values in units in the last place of what was expected."""
    with np.errstate(over="ignore"):
        unit = np.spacing(np.abs(expected).astype(np.float32)).astype(np.float64)
    return np.abs(found.astype(np.float64) - expected) / unit


UNIT = 2.0**-24
"""The largest relative error of rounding to float32."""

STEEPEST = {"gelu": 1.13, "gelu_tanh": 1.13, "silu": 1.1, "hard_swish": 1.5}
"""Largest derivative of activations without parameters, where it is more than 1."""


def bounded_outputs(
    layer: Layer, x: NDArray[Any], bound: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the outputs of a layer in 64-bit, and a bound of how far those that float32 computes are from them.

    Parameters
    ----------
    layer : Layer
        The layer.
    x : ndarray, inputs x samples
        Its exact inputs.
    bound : ndarray, inputs x samples
        How far the inputs of the float32 computation are from `x`, at most.
    """
    y = layer_output(layer, x)
    size = layer.weights.astype(np.float64)
    size.data = np.abs(size.data)
    terms = np.diff(layer.weights.indptr)[:, None] + 2
    added = size @ (np.abs(x) + bound) + np.abs(np.broadcast_to(layer.bias, layer.shape[0]))[:, None]
    # Each of n products and the bias is added with one rounding; of a maximum, one of the inputs is more than enough.
    moved = (size @ bound + terms * UNIT * added) * _steepest(layer)[:, None]
    return y, moved + UNIT * (np.abs(y) + moved) + 1e-44


def _steepest(layer: Layer) -> NDArray[np.float64]:
    """Return the largest absolute derivative of the activation of each row."""
    found, start = np.ones(layer.shape[0]), 0
    for group in layer.groups:
        rows = slice(start, start + group.rows)
        start = rows.stop
        kind, parameters = group.activation.kind, group.activation.parameters
        if kind == "prelu":
            assert layer.slopes is not None
            found[rows] = np.maximum(1, np.abs(layer.slopes[rows]))
        elif kind in {"leaky_relu", "elu", "hard_sigmoid"}:
            found[rows] = max(1.0, abs(parameters[0]))
        else:
            found[rows] = STEEPEST.get(kind, 1.0)
    return found
