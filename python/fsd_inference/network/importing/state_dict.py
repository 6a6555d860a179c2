"""Import of a chain of fully connected layers from a state dict in safetensors files."""

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
from fsd_inference.network.importing.tensor_files import shape_text, tensors_of
from fsd_inference.network.importing.weights import FLOATS, ModelTensor, model_tensors
from fsd_inference.network.layer import Layer

_WEIGHT = ".weight"
_SHOWN = 50  # tensors of a message
_PERMUTED = 7  # matrices at most, so that there are no more than 5,040 orders to try


def state_dict_layers(
    path: Path, layers: Sequence[str] | None, activations: Activations
) -> tuple[ImportedLayers, list[str]]:
    """Open the layers of a safetensors file; also return the names of the tensors that are left out.

    Parameters
    ----------
    path : Path
        A safetensors file, or the index file of several shards.
    layers : sequence of str or None
        Names of the layers in order. Layer NAME has the tensors ``NAME.weight``, outputs x inputs, and, if present,
        ``NAME.bias``.
    activations : Activation, str, sequence of them or None
        As for `each_activation`.

    Raises
    ------
    SettingError
        If `layers` is None; the message lists the tensors, and proposes a chain if exactly one fits.
    FileFormatError
        If a file cannot be read, or the layers are not a chain; lists all problems.
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
    """Return the reasons why the named layers are not a chain."""
    if not layers:
        return [f"a network needs at least one layer, but none of {path} is named"]
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
                f"{path}: {weight.name} ({shape_text(weight.shape)}) is not a matrix of outputs x inputs; "
                "only fully connected layers can be imported"
            )
            continue
        shapes.append((weight.shape[0], weight.shape[1]))
        if bias is not None and bias.shape not in ((), (1,), (weight.shape[0],)):
            problems.append(
                f"{path}: {bias.name} ({shape_text(bias.shape)}) does not match the {weight.shape[0]} outputs of "
                f"{weight.name}"
            )
    return [*problems, *width_problems([f"{path}: {name}{_WEIGHT}" for name in layers], shapes)]


def _proposal(path: Path, tensors: Mapping[str, ModelTensor]) -> str:
    """Return a message that lists the tensors, and proposes a chain of all matrices if exactly one fits."""
    shown = [f"{name} ({shape_text(tensor.shape)})" for name, tensor in sorted(tensors.items(), key=_by_nature)]
    text = f"{path} does not store the order of its layers; name them in order with --layers"
    chain = _chain(_matrices(tensors))
    if chain is not None:
        names = ",".join(name.removesuffix(_WEIGHT) for name in chain)
        text += f", such as --layers {names}, whose widths match"
    return f"{text}; its tensors are {listed(shown, most=_SHOWN) or 'none'}"


def _matrices(tensors: Mapping[str, ModelTensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all 2-D weights, with names in natural order."""
    return {
        name: tensor.shape
        for name, tensor in sorted(tensors.items(), key=_by_nature)
        if name.endswith(_WEIGHT) and len(tensor.shape) == 2
    }


def _chain(shapes: Mapping[str, tuple[int, ...]]) -> Sequence[str] | None:
    """Return all matrices in the given order if their widths match, otherwise in the only order that matches."""

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
    """Return a sort key that puts ``fc10`` after ``fc9``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", item[0])]
