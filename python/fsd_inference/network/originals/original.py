"""The interface of a model that a network is compared with, and models given as functions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.importing.tracing import Traced

Array = NDArray[Any]


class Original(ABC):
    """A model that maps a batch to outputs.

    Attributes
    ----------
    name : str
        The model and what runs it, for people.
    shape : tuple of int or None
        The shape of one sample; None if it takes samples in the shape in which they are given.
    batch : int or None
        The number of samples that it takes at once; None if any.
    in_16_bits : bool
        Whether it computes in float16 or bfloat16.
    """

    name: str
    shape: tuple[int, ...] | None = None
    batch: int | None = None
    in_16_bits: bool = False

    def trace(self) -> tuple[Sequence[int], Sequence[Traced]] | None:
        """Import the model again: return the widths of the network, and which neurons hold tensors of the model.

        None if that is not known.
        """
        return None

    @abstractmethod
    def run(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:
        """Return the outputs for a batch of the model's own shape, or the named tensors inside the model.

        Parameters
        ----------
        x : ndarray of float32, shape (samples, *shape)
            As many samples as `batch` says.
        names : sequence of str, optional
            Names of tensors inside the model.

        Returns
        -------
        list of ndarray
            Samples along the first axis.
        """

    def outputs(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:
        """Return what `run` returns for any number of samples, each array as samples x values.

        Parameters
        ----------
        x : ndarray of float32, shape (samples, ...)
            Samples of the model's shape, or flattened.
        names : sequence of str, optional
            Names of tensors inside the model.

        Raises
        ------
        InputError
            If samples do not have the model's shape, or the model cannot be run on them.
        """
        if self.shape is not None:
            if x[0].size != np.prod(self.shape):
                raise InputError(f"{self.name} takes {_text(self.shape)} values per sample, not {x[0].size}")
            x = x.reshape(len(x), *self.shape)
        step = self.batch or len(x)
        parts: list[list[Array]] = []
        for start in range(0, len(x), step):
            given = x[start : start + step]
            missing = step - len(given)
            full = np.concatenate([given, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else given
            found = self._checked(full, names)
            parts.append([array[: len(given)].reshape(len(given), -1) for array in found])
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _checked(self, x: Array, names: Sequence[str] | None) -> list[Array]:
        try:
            found = [np.asarray(array) for array in self.run(x, names)]
        except InputError:
            raise
        except Exception as error:  # a model may raise anything
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(f"{self.name} cannot be run on this input of {_text(x.shape)}: {text}") from error
        if not found:
            raise InputError(f"{self.name} returns nothing")
        for array in found:
            if array.dtype.kind not in "biuf":
                raise InputError(f"{self.name} returns values of type {array.dtype}; they must be real numbers")
            if not array.ndim or len(array) != len(x):
                raise InputError(
                    f"{self.name} returns an array of {_text(array.shape)} for {len(x)} samples; the first axis must "
                    "be that of the samples"
                )
        return found


class Function(Original):
    """A function from a float32 array of samples to an array of outputs.

    Parameters
    ----------
    function : callable
        Takes and returns arrays whose first axis is that of the samples.
    """

    def __init__(self, function: Callable[[Array], Any]) -> None:
        self.name = f"the function {getattr(function, '__name__', type(function).__name__)}"
        self._function = function

    def run(self, x: Array, names: Sequence[str] | None = None) -> list[Array]:  # noqa: ARG002 - nothing inside it has a name
        """Return the outputs."""
        return [np.asarray(self._function(x))]


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "one"
