"""What ONNX nodes do to samples: affine maps, composed in float64 into layers, and changes of shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.network.importing.layers import imported_layer
from fsd_inference.network.importing.onnx_tensors import UnsupportedError
from fsd_inference.network.layer import IDENTITY, RELU, Activation, Layer

Features: TypeAlias = tuple[int, ...]
SHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")

_MIXES = "does not leave samples x features; give it a shape that starts with the samples"


@dataclass(frozen=True, slots=True)
class Affine:
    """The map of x to activation(matrix @ x + bias).

    Attributes
    ----------
    matrix : csr_array of float64, shape (n_out, n_in)
        The weights.
    bias : ndarray of float64, shape (n_out,)
        The bias.
    diagonal : bool
        Whether the matrix is diagonal, so that a product with it has no more entries than the other factor.
    nodes : tuple of str
        The nodes that it computes, for messages.
    activation : Activation
        The activation.
    """

    matrix: sparse.csr_array
    bias: NDArray[np.float64]
    diagonal: bool
    nodes: tuple[str, ...]
    activation: Activation = IDENTITY

    @classmethod
    def elementwise(cls, scale: NDArray[Any], shift: NDArray[Any], node: str) -> Affine:
        """Return the map of x to scale * x + shift; both of shape (n,)."""
        size = np.arange(scale.size + 1)
        matrix = sparse.csr_array((scale.astype(np.float64), size[:-1], size), shape=(scale.size, scale.size))
        return cls(matrix, shift.astype(np.float64), True, (node,))

    def after(self, first: Affine) -> Affine:
        """Return the composition of this map after `first`, which has no activation."""
        return Affine(
            sparse.csr_array(self.matrix @ first.matrix),
            self.matrix @ first.bias + self.bias,
            self.diagonal and first.diagonal,
            first.nodes + self.nodes,
            self.activation,
        )

    def layer(self, where: str) -> Layer:
        """Return the layer, rounded to float32 and without zeros; InputError names a value that is not finite."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            rounded = self.matrix.astype(np.float32)
        rounded.eliminate_zeros()
        return imported_layer(f"{where}: {', '.join(self.nodes)}", rounded, self.bias, self.activation)


@dataclass(slots=True)
class Stack:
    """Maps in the order in which they are computed; neighbours are composed where one of them is diagonal."""

    maps: list[Affine] = field(default_factory=list)

    def push(self, then: Affine) -> None:
        """Append a map."""
        last = self.maps[-1] if self.maps else None
        if last is not None and last.activation == IDENTITY and (last.diagonal or then.diagonal):
            self.maps[-1] = then.after(last)
        else:
            self.maps.append(then)

    def activate(self, activation: Activation, features: int, node: str) -> None:
        """Append relu or a clipped relu of `features` values."""
        if not self.maps:
            self.maps.append(Affine.elementwise(np.ones(features), np.zeros(features), node))
        before = self.maps[-1].activation
        if before.kind == "clipped_relu":
            smallest = min(before.clip, activation.clip) if activation != RELU else before.clip
            activation = Activation("clipped_relu", smallest)
        self.maps[-1] = replace(self.maps[-1], activation=activation)


def reshaped(
    kind: str,
    batch: int | None,
    features: Features,
    attributes: dict[str, Any],
    constant: NDArray[Any] | None,
    opset: int,
) -> Features:
    """Return the shape of a sample after a node that reshapes.

    Parameters
    ----------
    kind : {"Flatten", "Reshape", "Squeeze", "Unsqueeze"}
        The operator.
    batch : int or None
        Number of samples; None if any.
    features : tuple of int
        Shape of a sample before.
    attributes : dict
        Attributes of the node.
    constant : ndarray or None
        Its second input: the shape, or the axes.
    opset : int
        From 13 on axes are an input.

    Raises
    ------
    UnsupportedError
        If samples would be mixed, or the shape is unknown.
    """
    if kind == "Flatten":
        if attributes.get("axis", 1) not in (1, -len(features)):
            raise UnsupportedError(_MIXES)
        return (math.prod(features),)
    if constant is not None and constant.dtype != np.int64:
        raise UnsupportedError("has a shape that is not of type INT64; export the model again")
    if kind == "Reshape":
        if constant is None:
            raise UnsupportedError(_MIXES)
        return _sizes(constant.tolist(), batch, features, bool(attributes.get("allowzero", 0)))
    axes = attributes.get("axes") if opset < 13 else None if constant is None else constant.tolist()
    if not axes:
        raise UnsupportedError("does not name its axes; export it with axes")
    return _with_axes(axes, features) if kind == "Unsqueeze" else _without_axes(axes, features)


def _with_axes(given: Sequence[int], features: Features) -> Features:
    axes = _axes(given, len(features) + len(given) + 1)
    rest = iter(features)
    return tuple(1 if axis in axes else next(rest) for axis in range(1, len(features) + len(given) + 1))


def _without_axes(given: Sequence[int], features: Features) -> Features:
    axes = _axes(given, len(features) + 1)
    if any(features[axis - 1] != 1 for axis in axes):
        raise UnsupportedError("removes an axis that is not of size 1; export the model again")
    return tuple(size for axis, size in enumerate(features, 1) if axis not in axes)


def _axes(given: Sequence[int], rank: int) -> set[int]:
    """Return axes counted from the front; UnsupportedError if they are not distinct axes of features."""
    axes = {axis + rank if axis < 0 else axis for axis in given}
    if min(axes) < 1 or max(axes) >= rank or len(axes) != len(given):
        raise UnsupportedError(_MIXES)
    return axes


def _sizes(target: Sequence[int], batch: int | None, features: Features, allow_zero: bool) -> Features:
    """Return the shape of a sample for the shape that Reshape is given."""
    if len(target) < 2 or (allow_zero and 0 in target) or min(target) < -1 or target.count(-1) > 1:
        raise UnsupportedError(_MIXES)
    sizes = [features[k] if size == 0 and k < len(features) else size for k, size in enumerate(target[1:])]
    if target[0] not in (0, -1) and (batch is None or target[0] != batch):
        raise UnsupportedError(_MIXES)
    known = math.prod(size for size in sizes if size != -1)
    if known and -1 in sizes:
        sizes[sizes.index(-1)] = math.prod(features) // known
    if 0 in sizes or math.prod(sizes) != math.prod(features):
        raise UnsupportedError(_MIXES)
    return tuple(sizes)
