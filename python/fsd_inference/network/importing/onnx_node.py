"""A node of an ONNX graph as operators see it: its inputs, as tensors of the lowering or constants, and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network.importing.lowering import Graph, Refs
from fsd_inference.network.importing.onnx_tensors import Constant, dense
from fsd_inference.network.importing.problems import UnsupportedError
from fsd_inference.network.importing.tensor_files import shape_text

AGAIN = "export the model again"
MIXES = "would mix samples or change their number; only what treats each sample alone can be imported"

_POINTS = 241
POINTS: NDArray[np.float64] = np.linspace(-8.0, 8.0, _POINTS)

Curve: TypeAlias = NDArray[np.float64]


@dataclass(eq=False)
class Tensor:
    """A tensor that depends on the samples.

    Attributes
    ----------
    refs : ndarray of int64 or None
        Its scalars, in the shape of one sample; None if no layer computes it, such as an error function.
    curves : list of (Tensor, ndarray)
        For tensors of which it is a function, the same for each element: the values of that function at `POINTS`.
    unsupported : tuple of (str, str)
        Where `refs` is None: the node that made it, and why no layer computes that.
    """

    refs: Refs | None
    curves: list[tuple[Tensor, Curve]] = field(default_factory=list)
    unsupported: tuple[str, str] = ("", "")

    def views(self) -> list[tuple[Tensor, Curve]]:
        """Return `curves`, and the tensor itself as the identity of itself."""
        return self.curves if self.refs is None else [*self.curves, (self, POINTS)]


Value: TypeAlias = "Tensor | Constant | None"


class NoLayerError(Exception):
    """A node reads a tensor that no layer computes; the problem is that of the node that made it."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.where, self.reason = tensor.unsupported


@dataclass
class Node:
    """A node whose inputs are known.

    Attributes
    ----------
    kind : str
        The operator.
    label : str
        Its name, for messages.
    inputs : sequence of Tensor, ndarray, sparse matrix or None
        Its inputs; None for an optional one that is left out.
    outputs : int
        Number of outputs that have a name.
    attributes : dict
        Its attributes and their defaults, by name.
    opset : int
        Version of the operators.
    batch : int or None
        Number of samples; None if any.
    graph : Graph
        Where its neurons are added.
    """

    kind: str
    label: str
    inputs: Sequence[Value]
    outputs: int
    attributes: dict[str, Any]
    opset: int
    batch: int | None
    graph: Graph

    def given(self, index: int) -> Value:
        """Return an input; None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def tensor(self, index: int = 0) -> Tensor:
        """Return an input that must depend on the samples."""
        value = self.given(index)
        if not isinstance(value, Tensor):
            raise UnsupportedError(f"does not take the samples as its input {index}; {AGAIN}")
        return value

    def refs(self, index: int = 0) -> Refs:
        """Return the scalars of an input that must depend on the samples."""
        return read(self.tensor(index))

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return an input that must be a dense constant; None if it is left out."""
        value = self.given(index)
        if isinstance(value, Tensor):
            raise UnsupportedError(f"takes an input {index} that depends on the samples; it must be a constant")
        return None if value is None else dense(value)

    def required(self, index: int) -> NDArray[Any]:
        """Return an input that must be a dense constant and be there."""
        value = self.constant(index)
        if value is None:
            raise UnsupportedError(f"has no input {index}; {AGAIN}")
        return value

    def whole_numbers(self, index: int) -> list[int] | None:
        """Return an input that must be a constant list of whole numbers; None if it is left out."""
        value = self.constant(index)
        if value is not None and value.dtype.kind not in "iu":
            raise UnsupportedError(f"has an input {index} that is not of type INT64; {AGAIN}")
        return None if value is None else [int(number) for number in value.ravel()]

    def axes(self, index: int, since: int) -> list[int] | None:
        """Return the axes that an attribute names, or from opset `since` on an input; None if neither does."""
        return self.attributes.get("axes") if self.opset < since else self.whole_numbers(index)

    def single_output(self) -> None:
        """Raise UnsupportedError if the node has more outputs than one."""
        if self.outputs > 1:
            raise UnsupportedError(f"has {self.outputs} outputs, of which the first is supported; {AGAIN} without them")

    def broadcast(self, value: NDArray[Any], shape: Sequence[int]) -> NDArray[np.float64]:
        """Return a constant without its axis of samples, for an operation with a tensor that has a shape of a sample.

        Raises
        ------
        UnsupportedError
            If it is not of floats, or does not fit the shape.
        """
        own = value.shape
        if value.ndim > len(shape):
            if own[0] != 1 or value.ndim > len(shape) + 1:
                raise self._misfit(value, shape)
            value = value[0]
        try:
            np.broadcast_shapes(value.shape, tuple(shape))
        except ValueError:
            raise self._misfit(value.reshape(own), shape) from None
        if value.dtype.kind != "f":
            raise self._misfit(value.reshape(own), shape)
        return value.astype(np.float64)

    def _misfit(self, value: NDArray[Any], shape: Sequence[int]) -> UnsupportedError:
        return UnsupportedError(
            f"has a constant ({shape_text(value.shape)}, {value.dtype}) that does not fit floats of one sample "
            f"({shape_text(tuple(shape))}); {AGAIN}"
        )


def read(tensor: Tensor) -> Refs:
    """Return the scalars of a tensor; NoLayerError if no layer computes it."""
    if tensor.refs is None:
        raise NoLayerError(tensor)
    return tensor.refs


def feature_axes(axes: Sequence[int], rank: int) -> list[int]:
    """Return axes of a tensor of samples as axes of one sample.

    Parameters
    ----------
    axes : sequence of int
        Axes counted from the front or, if negative, from the back.
    rank : int
        Number of axes, with that of the samples.

    Raises
    ------
    UnsupportedError
        If one is that of the samples, or they are not distinct.
    """
    positive = [axis + rank if axis < 0 else axis for axis in axes]
    if min(positive, default=1) < 1 or max(positive, default=1) >= rank or len(set(positive)) != len(positive):
        raise UnsupportedError(MIXES)
    return [axis - 1 for axis in positive]
