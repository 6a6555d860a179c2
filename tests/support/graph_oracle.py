"""Operators of networks on batches of samples in float64, written with loops, to compare imports with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[float])

ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "identity": lambda z: z,
    "relu": lambda z: np.where(z > 0, z, 0),
    "clipped_relu": lambda z, upper: np.minimum(np.where(z > 0, z, 0), upper),
    "clip": lambda z, lower, upper: np.where(z < lower, lower, np.where(z > upper, upper, z)),
    "leaky_relu": lambda z, slope: np.where(z < 0, slope * z, z),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "gelu": lambda z: z * (1 + _erf(z / math.sqrt(2))) / 2,
    "gelu_tanh": lambda z: z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "hard_swish": lambda z: z * np.clip(z + 3, 0, 6) / 6,
    "hard_sigmoid": lambda z, alpha, beta: np.clip(alpha * z + beta, 0, 1),
    "elu": lambda z, alpha: np.where(z < 0, alpha * np.expm1(np.minimum(z, 0)), z),
    "softplus": lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0),
}


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[tuple[int, int]],
    fill: float,
) -> Array:
    """Return the window at each position, shape (samples, channels, *positions, *kernel)."""
    padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
    sizes = [
        (size - dilation * (width - 1) - 1) // stride + 1
        for size, width, stride, dilation in zip(padded.shape[2:], kernel, strides, dilations, strict=True)
    ]
    found = np.empty((*x.shape[:2], *sizes, *kernel))
    for place in itertools.product(*map(range, sizes)):
        for tap in itertools.product(*map(range, kernel)):
            at = [p * s + t * d for p, s, t, d in zip(place, strides, tap, dilations, strict=True)]
            target: tuple[Any, ...] = (..., *place, *tap)
            source: tuple[Any, ...] = (..., *at)
            found[target] = padded[source]
    return found


def convolution(
    x: Array,
    weights: Array,
    bias: Array,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[tuple[int, int]],
    groups: int,
) -> Array:
    """Return the cross-correlation with filters of shape (outputs, channels / groups, *kernel), plus a bias."""
    axes = x.ndim - 2
    read = windows(x, weights.shape[2:], strides, dilations, pads, 0.0)
    each, channels = weights.shape[0] // groups, weights.shape[1]
    outputs = []
    for output, filter_ in enumerate(weights):
        first = output // each * channels
        part = np.moveaxis(read[:, first : first + channels], 1, 1 + axes)  # the channels beside the taps
        outputs.append((part * filter_).sum(axis=tuple(range(1 + axes, part.ndim))) + bias[output])
    return np.stack(outputs, axis=1)


def pooling(
    x: Array, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[tuple[int, int]], *, mean: bool
) -> Array:
    """Return the mean of each window without its padding, or the largest value in it."""
    taps = tuple(range(-len(kernel), 0))
    read = windows(x, kernel, strides, [1] * len(kernel), pads, math.nan)
    return np.asarray(np.nanmean(read, axis=taps) if mean else np.nanmax(read, axis=taps))
