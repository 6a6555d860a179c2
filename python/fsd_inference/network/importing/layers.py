"""Layers built from imported weights: checks of widths and activations, and the position of invalid values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.kernels import ActivationName
from fsd_inference.network.activation import IDENTITY, RELU, Activation, as_activation
from fsd_inference.network.checks import dense_array, shown
from fsd_inference.network.importing.problems import NOT_FINITE, refuse, sentence
from fsd_inference.network.layer import Layer
from fsd_inference.network.source import LayerSource
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES, SparseParts

ActivationLike: TypeAlias = Activation | ActivationName
Activations: TypeAlias = ActivationLike | Sequence[ActivationLike] | None


class ImportedLayers(LayerSource):
    """Layers that are read from files on access.

    Parameters
    ----------
    shapes : sequence of (int, int)
        (n_out, n_in) of each layer; widths of consecutive layers match.
    read : callable
        Returns layer k, or raises InputError with a message that names file or tensor.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]], read: Callable[[int], Layer]) -> None:
        self.widths = (shapes[0][1], *(outputs for outputs, _ in shapes))
        self._read = read

    def layer(self, index: int) -> Layer:
        """Read layer `index`; if it is invalid, the error also lists the problems of all later layers."""
        try:
            return self._read(index)
        except InputError as error:
            later = [self._problem(k) for k in range(index + 1, len(self.widths) - 1)]
            raise type(error)(sentence([str(error), *filter(None, later)])) from error

    def _problem(self, index: int) -> str | None:
        try:
            self._read(index)
        except InputError as error:
            return str(error)
        return None


def width_problems(names: Sequence[str], shapes: Sequence[tuple[int, int] | None], hint: str = "") -> list[str]:
    """Return a message for each pair of consecutive layers whose widths differ.

    Parameters
    ----------
    names : sequence of str
        Names of the layers' weights, for messages.
    shapes : sequence of (int, int) or None
        (n_out, n_in) of each layer; None where unknown.
    hint : str, optional
        What to do if all widths would match with the matrices transposed.
    """
    known = [shape for shape in shapes if shape is not None]
    problems = [
        f"{after} ({_size(second)}) takes {second[1]} inputs, but the layer before it, {before} "
        f"({_size(first)}), has {first[0]} outputs"
        for (before, first), (after, second) in pairwise(zip(names, shapes, strict=True))
        if first is not None and second is not None and first[0] != second[1]
    ]
    if hint and problems and all(first[1] == second[0] for first, second in pairwise(known)):
        problems.append(f"transposed, all would fit: {hint}")
    return problems


def each_activation(activations: Activations, layers: int) -> list[Activation]:
    """Return the activation of each layer.

    Parameters
    ----------
    activations : Activation, str, sequence of them or None
        One for all layers, or one per layer; None means relu, with identity for the last layer.
    layers : int
        Number of layers.

    Raises
    ------
    InputError
        If the number of activations is not that of the layers, or one is unknown.
    """
    if activations is None:
        return [*[RELU] * (layers - 1), IDENTITY]
    if isinstance(activations, str) or not isinstance(activations, Sequence):
        return [as_activation(activations)] * layers
    if len(activations) != layers:
        raise InputError(f"{len(activations)} activations are given for {layers} layers; give one, or one per layer")
    return [as_activation(activation) for activation in activations]


def imported_layer(
    where: str, weights: Any, bias: ArrayLike, activation: Activation, *, transposed: bool = False
) -> Layer:
    """Build a layer; errors name its source and the position of a value that is not finite.

    Parameters
    ----------
    where : str
        File, tensor or number of the layer, for messages.
    weights : SparseParts, sparse array or array_like
        Shape (n_out, n_in), or (n_in, n_out) if `transposed`.
    bias, activation
        As for `Layer`.
    transposed : bool, optional
        Whether rows are inputs.

    Raises
    ------
    InputError
        If `Layer` rejects the weights or the bias.
    """
    try:
        matrix = weights.to_csr("the matrix") if isinstance(weights, SparseParts) else weights
        return Layer(matrix.T if transposed else matrix, bias, activation)
    except InputError as error:
        raise InputError(f"{where}: {_not_finite(weights, bias, transposed) or error}") from error


def layers_from_matrices(weights: Any, biases: Any, activations: Activations) -> list[Layer]:
    """Build the layers of `Network.from_matrices`, which documents the parameters.

    Raises
    ------
    InputError
        If matrices cannot be the layers of a network; lists all problems.
    """
    matrices = _as_list(weights, "the weights of a network")
    if not matrices:
        raise InputError("a network needs at least one matrix of weights")
    given = [None] * len(matrices) if biases is None else _as_list(biases, "the biases of a network")
    if len(given) != len(matrices):
        raise InputError(f"{len(given)} biases are given for {len(matrices)} layers; give one for each, or None")
    layers: list[Layer] = []
    shapes: list[tuple[int, int] | None] = []
    problems: list[str] = []
    for k, activation in enumerate(each_activation(activations, len(matrices))):
        bias: Any = 0.0 if given[k] is None else given[k]
        try:
            layers.append(imported_layer(f"layer {k}", matrices[k], bias, activation))
            shapes.append(layers[-1].shape)
        except InputError as error:
            shape: Any = getattr(matrices[k], "shape", ())
            shapes.append(shape if len(shape) == 2 else None)
            problems.append(str(error))
    names = [f"layer {k}" for k in range(len(matrices))]
    refuse([*problems, *width_problems(names, shapes, "rows must be outputs, columns inputs")])
    return layers


def _as_list(x: Any, what: str) -> list[Any]:
    if sparse.issparse(x) or isinstance(x, str | bytes):
        raise InputError(f"{what} must be a list with one entry per layer, not {shown(x)}")
    try:
        return list(x)
    except TypeError:
        raise InputError(f"{what} must be a list with one entry per layer, not {shown(x)}") from None


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _not_finite(weights: Any, bias: ArrayLike, transposed: bool) -> str | None:
    """Return a message about the first weight or bias that is not finite in float32, or None."""
    try:
        place = _first_weight(weights)
        if place is not None:
            output, input_ = reversed(place) if transposed else place
            return f"the weight of output {output} and input {input_} (counted from 0) {NOT_FINITE}"
        places = np.flatnonzero(_is_not_finite(dense_array(bias, "a bias")))
        return f"the bias of output {places[0]} (counted from 0) {NOT_FINITE}" if places.size else None
    except InputError:  # invalid in another way
        return None


def _first_weight(weights: Any) -> tuple[int, int] | None:
    """Return row and column of the first weight that is not finite in float32."""
    is_sparse = bool(sparse.issparse(weights))  # a name, so that weights stays Any for the type checker
    if is_sparse or isinstance(weights, SparseParts):
        parts = SparseParts.of(weights, "weights") if is_sparse else weights
        found = SparseParts(parts.format, parts.shape, _is_not_finite(parts.data), parts.index).to_csr("weights")
        found.eliminate_zeros()
        return (int(np.searchsorted(found.indptr, 0, side="right")) - 1, int(found.indices[0])) if found.nnz else None
    dense = dense_array(weights, "weights")
    if dense.ndim != 2 or not dense.size:
        return None
    step = max(1, BLOCK_ENTRIES // dense.shape[1])
    for start in range(0, len(dense), step):
        places = np.argwhere(_is_not_finite(dense[start : start + step]))
        if places.size:
            return start + int(places[0, 0]), int(places[0, 1])
    return None


def _is_not_finite(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind not in "biuf":
        return np.zeros(array.shape, bool)
    with np.errstate(over="ignore", invalid="ignore"):
        return ~np.isfinite(array.astype(np.float32))
