"""A chain of fully connected layers out of a model's state dict in safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, permutations
from pathlib import Path

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.network.importing.layers import (
    Activations,
    ImportedLayers,
    each_activation,
    imported_layer,
    width_problems,
)
from fsd_inference.network.importing.problems import listed, refuse
from fsd_inference.network.importing.tensor_files import entries_of, shape_text, tensors_of
from fsd_inference.network.importing.weights import FLOATS, ModelTensor, model_tensors
from fsd_inference.network.layer import Layer

_WEIGHT = ".weight"
_PERMUTED = 7  # matrices whose orders, 5,040 at most, are all tried


def state_dict_layers(
    path: Path, layers: Sequence[str] | None, activations: Activations
) -> tuple[ImportedLayers, list[str]]:
    """Return the layers of a safetensors file and the names of the tensors that are not among them.

    Parameters
    ----------
    path : Path
        A safetensors file, or the index file of several.
    layers : sequence of str or None
        The chain: NAME for the tensors ``NAME.weight``, outputs x inputs, and ``NAME.bias``, if there is one.
    activations : Activation, str, sequence of them or None
        As `each_activation` takes them.

    Raises
    ------
    SettingError
        If `layers` are not given; the message lists the tensors, and the chain if there is but one.
    FileFormatError
        If a file cannot be read, or the layers are no chain; lists all problems.
    """
    tensors = model_tensors(tensors_of(path))
    if layers is None:
        raise SettingError(_proposal(path, tensors))
    refuse(_problems(path, tensors, layers), FileFormatError)
    weights = [tensors[name + _WEIGHT] for name in layers]
    biases = [tensors.get(f"{name}.bias") for name in layers]
    each = each_activation(activations, len(weights))

    def read(index: int) -> Layer:
        weight, bias = weights[index], biases[index]
        where = f"{path}: {weight.name}"
        return imported_layer(where, weight.read(), 0.0 if bias is None else bias.read(), each[index])

    used = {tensor.name for tensor in (*weights, *biases) if tensor is not None}
    shapes = [(weight.shape[0], weight.shape[1]) for weight in weights]
    return ImportedLayers(shapes, read), [name for name in tensors if name not in used]


def _problems(path: Path, tensors: Mapping[str, ModelTensor], layers: Sequence[str]) -> list[str]:
    """Return why the named layers are no chain."""
    if not layers:
        return [f"no layer of {path} is named; a network needs at least one"]
    problems: list[str] = []
    shapes: list[tuple[int, int] | None] = []
    missing = [name for name in layers if name + _WEIGHT not in tensors]
    if missing:
        there = listed([name.removesuffix(_WEIGHT) for name in _matrices(tensors)]) or "none"
        wanted = listed([name + _WEIGHT for name in missing])
        problems.append(f"{path} has no {wanted}; the layers with 2-D weights are {there}")
    for name in layers:
        weight, bias = tensors.get(name + _WEIGHT), tensors.get(f"{name}.bias")
        if weight is None:
            shapes.append(None)
            continue
        problems += [
            f"{path}: {tensor.name} is of type {tensor.dtype}, but only {', '.join(FLOATS)} are read; convert it"
            for tensor in (weight, bias)
            if tensor is not None and tensor.dtype not in FLOATS
        ]
        if len(weight.shape) != 2 or 0 in weight.shape:
            shapes.append(None)
            problems.append(
                f"{path}: {weight.name} ({shape_text(weight.shape)}) is no matrix of outputs x inputs; "
                "only fully connected layers can be imported"
            )
            continue
        shapes.append((weight.shape[0], weight.shape[1]))
        if bias is not None and (len(bias.shape) > 1 or entries_of(bias.shape) not in (1, weight.shape[0])):
            problems.append(
                f"{path}: {bias.name} ({shape_text(bias.shape)}) does not fit the {weight.shape[0]} outputs of "
                f"{weight.name}"
            )
    return [*problems, *width_problems([f"{path}: {name}{_WEIGHT}" for name in layers], shapes)]


def _proposal(path: Path, tensors: Mapping[str, ModelTensor]) -> str:
    """Return the sentence that lists the tensors, and the chain of all matrices if there is exactly one."""
    shown = [f"{name} ({shape_text(tensor.shape)})" for name, tensor in sorted(tensors.items(), key=_by_nature)]
    text = f"{path} does not say which layers follow each other, so name them in order with --layers"
    chain = _chain(_matrices(tensors))
    if chain is not None:
        names = ",".join(name.removesuffix(_WEIGHT) for name in chain)
        text += f", such as --layers {names}, which fit each other by width"
    return f"{text}; its tensors are {listed(shown) or 'none'}"


def _matrices(tensors: Mapping[str, ModelTensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all 2-D weights, names in natural order."""
    return {
        name: tensor.shape
        for name, tensor in sorted(tensors.items(), key=_by_nature)
        if name.endswith(_WEIGHT) and len(tensor.shape) == 2
    }


def _chain(shapes: Mapping[str, tuple[int, ...]]) -> Sequence[str] | None:
    """Return all matrices in their order if they fit each other so, or in the only other order in which they do."""

    def fits(names: Sequence[str]) -> bool:
        return all(shapes[before][0] == shapes[after][1] for before, after in pairwise(names))

    names = list(shapes)
    if not names:
        return None
    if fits(names):
        return names
    if len(names) > _PERMUTED:
        return None
    others = [order for order in permutations(names) if fits(order)]
    return others[0] if len(others) == 1 else None


def _by_nature(item: tuple[str, object]) -> list[tuple[int, str]]:
    """Return a key that sorts ``fc10`` behind ``fc9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", item[0])]
