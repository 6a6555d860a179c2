"""An ATen operator of PyTorch with its arguments, as the importer sees it: without the axis of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network.checks import shown
from fsd_inference.network.importing.lowering import Graph, Refs
from fsd_inference.network.importing.problems import UnsupportedError

MIXES = "mixes samples; every operator must treat each sample on its own"
UNEQUAL = "has a constant with other values for each sample; all samples must be treated alike"


@dataclass(frozen=True, slots=True)
class Call:
    """An operator with its arguments.

    Attributes
    ----------
    graph : Graph
        What the operator is added to.
    name : str
        Name of the operator, such as "convolution".
    where : str
        The operator and its place in the module, for messages.
    arguments : mapping
        Its arguments by name: references of one sample, PyTorch tensors, numbers, or lists of them.
    shapes : tuple of (tuple of int)
        The shape of one sample of each result.
    """

    graph: Graph
    name: str
    where: str
    arguments: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    def tensor(self, name: str) -> Refs:
        """Return an argument that depends on the samples."""
        value = self.arguments[name]
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"takes a constant as {name}; only the samples can be there")
        return value

    def constant(self, name: str) -> NDArray[np.float64]:
        """Return an argument that is known, in float64."""
        value = self.arguments[name]
        if isinstance(value, np.ndarray):
            raise UnsupportedError(f"takes a {name} that depends on the samples; it must be constant")
        return as_array(value)

    def optional(self, name: str, default: float) -> NDArray[np.float64]:
        """Return a known argument, or a number where it is None."""
        return np.asarray(default) if self.arguments[name] is None else self.constant(name)

    def axis(self, dim: int, rank: int) -> int:
        """Return an axis of one sample for one of a tensor with `rank` axes besides the samples'."""
        axis = dim % (rank + 1) - 1
        if axis < 0:
            raise UnsupportedError(MIXES)
        return axis

    def sample(self, value: Any) -> Refs:
        """Return the tensor of one sample, also for a constant that is the same for all of them."""
        if isinstance(value, np.ndarray):
            return value
        array = as_array(value)
        if not array.ndim or (array != array[:1]).any():
            raise UnsupportedError(UNEQUAL)
        return self.graph.constant(array[0])


def as_array(value: Any) -> NDArray[np.float64]:
    """Return a number or a PyTorch tensor of any real type as float64."""
    if isinstance(value, int | float):
        return np.asarray(value, np.float64)
    return np.asarray(value.detach().to_dense().double().cpu().numpy())


def arguments_of(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operator by name, with the defaults of its schema."""
    names = [argument.name for argument in schema.arguments]
    given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    return given | dict(zip(names, args, strict=False)) | dict(kwargs)


def unknown(name: str) -> UnsupportedError:
    """Return the error for an operator that is in no table."""
    return UnsupportedError(f"is the operator {shown(name)[1:-1]}, which cannot be imported; replace it by another")
