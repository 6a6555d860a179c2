"""Activation functions of neurons, and groups of rows that compute alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.kernels import ActivationName, KernelGroup, activate
from fsd_inference.network.checks import (
    as_float32,
    check_real,
    dense_array,
    nearest_float32,
    shown,
    whole_number,
)

ACTIVATION_KINDS: tuple[ActivationName, ...] = get_args(ActivationName)
_PARAMETERS: dict[ActivationName, tuple[str, ...]] = {
    "clipped_relu": ("upper",),
    "clip": ("lower", "upper"),
    "leaky_relu": ("slope",),
    "hard_sigmoid": ("alpha", "beta"),
    "elu": ("alpha",),
}
Reduce = Literal["sum", "max"]


@dataclass(frozen=True, init=False, slots=True)
class Activation:
    """An activation function, applied to the pre-activation z of each neuron.

    ===============  ===============  =====================================================
    kind             parameters       value
    ===============  ===============  =====================================================
    identity                          z
    relu                              max(z, 0)
    clipped_relu     upper > 0        min(max(z, 0), upper)
    clip             lower, upper     min(max(z, lower), upper)
    leaky_relu       slope            z, or slope z if z < 0
    prelu                             as leaky_relu, with the slope of the row in the layer
    sigmoid                           1 / (1 + exp(-z))
    tanh                              tanh(z)
    gelu                              z (1 + erf(z / sqrt(2))) / 2
    gelu_tanh                         z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))) / 2
    silu                              z / (1 + exp(-z))
    hard_swish                        z min(max(z + 3, 0), 6) / 6
    hard_sigmoid     alpha, beta      min(max(alpha z + beta, 0), 1)
    elu              alpha            z, or alpha (exp(z) - 1) if z < 0
    softplus                          ln(1 + exp(z))
    ===============  ===============  =====================================================

    The value is computed in 64-bit by a fixed sequence of operations and rounded once to float32, so it has the same
    bits on every machine.

    Parameters
    ----------
    kind : str
        One of the kinds above.
    *parameters : float
        Its parameters, in the order above; rounded to float32.

    Attributes
    ----------
    kind : str
        The kind.
    parameters : tuple of float
        Its parameters.

    Raises
    ------
    InputError
        If the kind is unknown, parameters are missing, too many or not finite, or bounds are not in order.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Activation("clipped_relu", 32)
    Activation('clipped_relu', 32.0)
    >>> fsd.Activation("tanh").apply([0.0, 1.0])
    array([0.       , 0.7615942], dtype=float32)
    """

    kind: ActivationName
    parameters: tuple[float, ...]

    def __init__(self, kind: ActivationName, *parameters: float) -> None:
        if not isinstance(kind, str) or kind not in ACTIVATION_KINDS:
            raise InputError(f"an activation is one of {', '.join(ACTIVATION_KINDS)}, not {shown(kind)}")
        kind = cast("ActivationName", str(kind))
        names = _PARAMETERS.get(kind, ())
        if len(parameters) != len(names):
            wanted = f"its {' and '.join(names)}, such as {_example(kind)}" if names else "no parameters"
            raise InputError(f"the activation {kind} takes {wanted}; {len(parameters)} are given")
        rounded = tuple(
            nearest_float32(value, f"the {name} of {kind}") for name, value in zip(names, parameters, strict=True)
        )
        for name, value, given in zip(names, rounded, parameters, strict=True):
            if not math.isfinite(value):
                raise InputError(f"the {name} of {kind} must be finite in float32, not {shown(given)}")
        if kind == "clipped_relu" and rounded[0] <= 0:
            raise InputError(f"the upper bound of clipped_relu must be positive in float32, not {shown(parameters[0])}")
        if kind == "clip" and rounded[0] > rounded[1]:
            raise InputError(f"the bounds of clip must ascend, not {rounded[0]} and {rounded[1]}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "parameters", rounded)

    def apply(self, z: NDArray[np.float32] | Sequence[float], slope: float = 0.0) -> NDArray[np.float32]:
        """Return the activations of pre-activations, with the bits of the kernels; -0 becomes +0.

        Parameters
        ----------
        z : array_like
            Pre-activations of any shape, rounded to float32.
        slope : float, optional
            The slope of "prelu".

        Raises
        ------
        InputError
            If they are not real numbers.
        """
        given = dense_array(z, "the pre-activations")
        check_real(given.dtype, "the pre-activations")
        values = as_float32(given)
        each = nearest_float32(slope, "the slope of prelu")
        done = activate(self.kind, list(self.parameters), np.ascontiguousarray(values).ravel(), each)
        return done.reshape(values.shape)

    def __repr__(self) -> str:
        return f"Activation({', '.join(repr(part) for part in (self.kind, *self.parameters))})"

    def __str__(self) -> str:
        return ":".join([self.kind, *(f"{parameter:g}" for parameter in self.parameters)])


IDENTITY = Activation("identity")
RELU = Activation("relu")


class RowGroup(NamedTuple):
    """Consecutive rows of a layer that compute alike.

    Parameters
    ----------
    rows : int
        Number of rows.
    activation : Activation
        Their activation.
    reduce : {"sum", "max"}
        Whether a row is the sum of its weighted inputs, or the largest of its inputs (max pooling). The weights of a
        "max" row are all 1, and it has at least one. The bias is added, and the activation applied, after that.

    Raises
    ------
    InputError
        By the `Layer` that is given it, if anything is wrong.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> pooled = fsd.RowGroup(1, fsd.Activation("identity"), "max")
    >>> fsd.Layer([[1, 1, 0], [0, 2, 1]], 0.0, [pooled, fsd.RowGroup(1, fsd.Activation("tanh"))])
    Layer(2 x 3, 4 connections, 1 max identity, 1 tanh)
    """

    rows: int
    activation: Activation
    reduce: Reduce = "sum"


def as_activation(activation: object) -> Activation:
    """Return an activation that is given as itself or by a name that needs no parameters.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise InputError(f'an activation must be an Activation, or a name such as "relu", not {shown(activation)}')
    return Activation(cast("ActivationName", activation))


def parsed_activation(text: str) -> Activation:
    """Return the activation of a text such as ``relu``, ``clipped_relu:32`` or ``clip:-1:1``.

    Raises
    ------
    InputError
        If it is not an activation.
    """
    kind, *parameters = text.split(":")
    try:
        numbers = [float(parameter) for parameter in parameters]
    except ValueError:
        raise InputError(f"{shown(text)} is not an activation with numbers, such as clipped_relu:32") from None
    return Activation(cast("ActivationName", kind), *numbers)


def row_groups(activation: object, rows: int) -> tuple[RowGroup, ...]:
    """Return the groups of the rows of a layer, with equal neighbours merged.

    Parameters
    ----------
    activation : Activation, str or sequence of RowGroup
        One activation for all rows, or groups in order of rows.
    rows : int
        Number of rows of the layer.

    Raises
    ------
    InputError
        If groups are malformed, or do not have as many rows as the layer.
    """
    if isinstance(activation, str | Activation) or not isinstance(activation, Sequence):
        return (RowGroup(rows, as_activation(activation)),)
    groups = []
    for group in activation:
        if not isinstance(group, RowGroup):
            raise InputError(f"the groups of a layer's rows must be RowGroups, not {shown(group)}")
        count = whole_number(group.rows, "the number of rows of a group")
        if count < 0 or group.reduce not in ("sum", "max"):
            raise InputError(f"a group of {count} rows that reduce by {shown(group.reduce)} cannot be; see RowGroup")
        groups.append(RowGroup(count, as_activation(group.activation), group.reduce))
    if sum(group.rows for group in groups) != rows:
        raise InputError(f"the groups have {sum(group.rows for group in groups)} rows, but the layer has {rows}")
    merged = groupby((group for group in groups if group.rows), lambda group: group[1:])
    return tuple(RowGroup(sum(group.rows for group in alike), *key) for key, alike in merged)


def kernel_groups(groups: Sequence[RowGroup]) -> tuple[KernelGroup, ...]:
    """Return groups of rows in the form of `kernels.LayerKernel`."""
    return tuple((group.rows, group.reduce, group.activation.kind, group.activation.parameters) for group in groups)


def _example(kind: ActivationName) -> str:
    values = {"clipped_relu": "32", "clip": "-1, 1", "leaky_relu": "0.01", "hard_sigmoid": "0.2, 0.5", "elu": "1"}
    return f'Activation("{kind}", {values[kind]})'
