"""Reader of networks with one matrix file per layer: ``layer-1.npz``, ``layer-1.bias.npy``, ``layer-2.npz``..."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.importing.layers import (
    Activations,
    ImportedLayers,
    each_activation,
    imported_layer,
    width_problems,
)
from fsd_inference.network.importing.problems import listed, refuse
from fsd_inference.network.layer import Layer
from fsd_inference.network.matrix_market import matrix_market_shape, read_matrix_market
from fsd_inference.network.numpy_files import map_npy, read_npz
from fsd_inference.network.readers.npz import saved_parts
from fsd_inference.network.sparse_arrays import SparseParts

_WEIGHTS = re.compile(r"layer-(\d{1,9})\.(?:mtx|mtx\.gz|npz|npy)", re.ASCII)
_BIAS = re.compile(r"layer-(\d{1,9})\.bias\.npy", re.ASCII)
_LOOKS_LIKE_A_LAYER = re.compile(r"[\W_]*layer.*\.(?:mtx|mtx\.\w+|npz|npy)", re.IGNORECASE)
_MAX_EMPTY = 1 << 24  # rows or columns, even if there are fewer weights


@dataclass(frozen=True, slots=True)
class _LayerFiles:
    weights: Path
    bias: Path | None


def is_layer_file(path: Path) -> bool:
    """Return whether a file is named as the weights or the bias of a layer."""
    return any(pattern.fullmatch(path.name) for pattern in (_WEIGHTS, _BIAS))


def matrix_layers(
    folder: Path, entries: Iterable[Path], activations: Activations, *, transpose: bool
) -> ImportedLayers:
    """Open the layers in matrix files; each is read on access.

    Parameters
    ----------
    folder : Path
        Where the files are, for messages.
    entries : iterable of Path
        Named ``layer-N.mtx``, ``.mtx.gz``, ``.npz`` (of ``scipy.sparse.save_npz``) or ``.npy``, outputs x inputs, and
        ``layer-N.bias.npy`` if a layer has a bias; N counts from 0 or 1. Other files are ignored; a file that looks
        like a layer but has a different name is an error.
    activations : Activation, str, sequence of them or None
        As for `each_activation`.
    transpose : bool
        Whether the files are inputs x outputs.

    Raises
    ------
    InputError
        If names or shapes are invalid; lists all problems.
    """
    files = _by_number(entries)
    if not files:
        raise FileFormatError(
            f"{folder} has no files named like layer-1.npz (.npy, .mtx, .mtx.gz) or n1024-l1.tsv (.tsv.gz)"
        )
    shapes: list[tuple[int, int] | None] = []
    problems: list[str] = []
    for layer in files:
        try:
            rows, columns = _shape(layer.weights)
            shapes.append((columns, rows) if transpose else (rows, columns))
        except InputError as error:
            shapes.append(None)
            problems.append(str(error))
        problems += _bias_problems(layer, shapes[-1])
    names = [str(layer.weights) for layer in files]
    hint = "leave out --transpose" if transpose else "if rows are inputs, add --transpose"
    problems += width_problems(names, shapes, hint)
    refuse(problems, FileFormatError)
    each = each_activation(activations, len(files))

    def read(index: int) -> Layer:
        layer = files[index]
        bias = 0.0 if layer.bias is None else map_npy(layer.bias)
        return imported_layer(str(layer.weights), _read(layer.weights), bias, each[index], transposed=transpose)

    return ImportedLayers([shape for shape in shapes if shape is not None], read)


def _by_number(entries: Iterable[Path]) -> list[_LayerFiles]:
    """Return the files of each layer, ordered by the number in their names (10 after 9)."""
    weights: dict[int, Path] = {}
    biases: dict[int, Path] = {}
    problems: list[str] = []
    for entry in sorted(entries):
        for pattern, files in ((_WEIGHTS, weights), (_BIAS, biases)):
            if match := pattern.fullmatch(entry.name):
                other = files.setdefault(int(match[1]), entry)
                if other != entry:
                    problems.append(f"{other} and {entry} are the same layer; keep one of them")
                break
        else:
            if _LOOKS_LIKE_A_LAYER.fullmatch(entry.name):
                problems.append(
                    f"{entry} looks like a layer but is not named like layer-1.npz or layer-1.bias.npy; "
                    "rename it or move it elsewhere"
                )
    first = 0 if 0 in weights else 1
    problems += [
        f"{biases[number]} exists, but the weights of its layer are missing"
        for number in sorted(biases.keys() - weights.keys())
    ]
    missing = [number for number in range(first, first + len(weights)) if number not in weights]
    if missing:
        numbers = listed(list(map(str, missing)))
        problems.append(f"{weights[max(weights)]} exists, but the layers with these numbers are missing: {numbers}")
    refuse(problems, FileFormatError)
    return [_LayerFiles(weights[number].absolute(), _absolute(biases.get(number))) for number in sorted(weights)]


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.absolute()


def _shape(file: Path) -> tuple[int, int]:
    """Read rows and columns of a matrix file, but not its values."""
    shape: Sequence[int]
    if file.suffix == ".npy":
        shape = map_npy(file).shape
    elif file.suffix == ".npz":
        named = read_npz(file, only={"shape"}).get("shape")
        if named is not None and named.ndim == 1 and named.dtype.kind in "iu":
            shape = named.tolist()
        else:  # raises an error that names what the file holds instead
            shape = saved_parts(read_npz(file), str(file)).shape
    else:
        shape = matrix_market_shape(file)
    if len(shape) != 2:
        raise FileFormatError(f"{file} holds a {len(shape)}-D array; weights are 2-D, outputs x inputs")
    return shape[0], shape[1]


def _read(file: Path) -> SparseParts | NDArray[Any]:
    if file.suffix == ".npy":
        return map_npy(file)
    matrix = saved_parts(read_npz(file), str(file)) if file.suffix == ".npz" else read_matrix_market(file)
    if not isinstance(matrix, SparseParts):
        return matrix
    size, weights = max(matrix.shape), matrix.data.size
    if size > max(_MAX_EMPTY, weights):  # converting it takes memory for each row and column
        raise FileFormatError(f"{file} has {size} rows or columns, but only {weights} weights; remove the empty ones")
    return matrix


def _bias_problems(layer: _LayerFiles, shape: tuple[int, int] | None) -> list[str]:
    if layer.bias is None:
        return []
    try:
        bias = map_npy(layer.bias)
    except InputError as error:
        return [str(error)]
    if bias.ndim > 1:
        return [f"{layer.bias} holds a {bias.ndim}-D array; a bias is 1-D, an entry an output"]
    if shape is not None and bias.size not in (1, shape[0]):
        return [f"{layer.bias} has {bias.size} entries, but {layer.weights} has {shape[0]} outputs"]
    return []
