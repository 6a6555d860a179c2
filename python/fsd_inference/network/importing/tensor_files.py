"""Tensors of safetensors files: one file, or the shards that an index file names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fsd_inference.errors import FileFormatError
from fsd_inference.network.importing.problems import refuse

INDEX_SUFFIX = ".safetensors.index.json"

_INDEX_BYTES = 64 << 20
_LENGTH_BYTES = 8  # of the header, before it


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file.

    Attributes
    ----------
    file : Path
        Where it is.
    name : str
        What it is called there.
    dtype : str
        As safetensors names types: "F32", "BF16"...
    shape : tuple of int
        Of the array.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """Return the array; bfloat16, which NumPy lacks, as float32, which holds each of its values exactly.

        Raises
        ------
        FileFormatError
            If the file has changed or cannot be read.
        """
        with _reading(self.file), safe_open(self.file, framework="numpy") as tensors:
            if self.dtype != "BF16":
                array: NDArray[Any] = tensors.get_tensor(self.name)
                return array
        halves = self._raw().view("<u2").reshape(self.shape)
        return (halves.astype(np.uint32) << 16).view(np.float32)

    def _raw(self) -> NDArray[np.uint8]:
        """Return the bytes of a tensor in a file whose header safetensors has checked."""
        with _reading(self.file), self.file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            begin, end = json.loads(stream.read(length))[self.name]["data_offsets"]
            return np.fromfile(stream, np.uint8, end - begin, offset=begin)


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    """Return the tensors of a safetensors file, or of those that an index file (``*.safetensors.index.json``) names.

    Raises
    ------
    FileFormatError
        If a file is missing or damaged, or has not the tensors that the index says; lists all problems.
    """
    if path.suffix != ".json":
        return _tensors_in(path.absolute())
    found: dict[str, StoredTensor] = {}
    problems: list[str] = []
    files: dict[str, list[str]] = {}
    for name, file in _weight_map(path).items():
        files.setdefault(file, []).append(name)
    for file, names in files.items():
        if Path(file).name != file:
            problems.append(f"{path} names {file!r}, which is not the name of a file beside it")
            continue
        try:
            there = _tensors_in(path.absolute().with_name(file))
        except FileFormatError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{path} says that {file} has the tensor {name}, but it has not" for name in names if name not in there
        ]
        found |= {name: there[name] for name in names if name in there}
    refuse(problems, FileFormatError)
    return found


def _weight_map(path: Path) -> Mapping[str, str]:
    """Return the file of each tensor, as an index says."""
    with _reading(path):
        if path.stat().st_size > _INDEX_BYTES:
            raise FileFormatError(f"{path} is larger than any index of tensors; it is something else")
        index = json.loads(path.read_text(encoding="utf-8"))
    named = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(named, dict) or not all(isinstance(file, str) for file in named.values()):
        raise FileFormatError(f'{path} is not an index of safetensors: it has no "weight_map" of tensors and files')
    return named


def _tensors_in(file: Path) -> dict[str, StoredTensor]:
    with _reading(file), safe_open(file, framework="numpy") as tensors:
        found = {}
        for name in tensors.keys():  # noqa: SIM118 - it is no mapping
            part = tensors.get_slice(name)
            found[name] = StoredTensor(file, name, part.get_dtype(), tuple(part.get_shape()))
        return found


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise FileFormatError(f"{file} is damaged, or of another kind than its name says: {error}") from error


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as people write it: ``64 x 784``."""
    return " x ".join(map(str, shape)) or "one number"


def entries_of(shape: tuple[int, ...]) -> int:
    """Return how many numbers an array of that shape has."""
    return math.prod(shape)
