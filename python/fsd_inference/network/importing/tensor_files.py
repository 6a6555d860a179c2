"""Reader of the tensors in a safetensors file, or in the shards that an index file lists."""

from __future__ import annotations

import json
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
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "BOOL": "?",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file.

    Attributes
    ----------
    file : Path
        The safetensors file.
    name : str
        Name of the tensor in the file.
    dtype : str
        Type as named by safetensors, such as "F32" or "BF16".
    shape : tuple of int
        Shape of the tensor.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """Map the array; bfloat16, which NumPy lacks, is converted to float32, which is exact.

        Raises
        ------
        FileFormatError
            If the file has changed, cannot be read, or NumPy lacks the type.
        """
        if self.dtype not in _TYPES:
            raise FileFormatError(
                f"{self.file}: {self.name} is of type {self.dtype}, but only {', '.join(_TYPES)} are read; convert it"
            )
        array = self._mapped(np.dtype(_TYPES[self.dtype]))
        return (array.astype(np.uint32) << 16).view(np.float32) if self.dtype == "BF16" else array

    def _mapped(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Map a tensor; safetensors, which always copies tensors, has verified the file's header."""
        with _reading(self.file), self.file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            begin, end = json.loads(stream.read(length))[self.name]["data_offsets"]
            if begin == end:  # which cannot be mapped
                return np.empty(self.shape, dtype)
            return np.memmap(stream, dtype, "r", _LENGTH_BYTES + length + begin, self.shape or (1,)).reshape(self.shape)


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of a safetensors file, or of all shards of an index file (``*.safetensors.index.json``).

    Raises
    ------
    FileFormatError
        If a file is missing or damaged, or lacks a tensor that the index assigns to it; lists all problems.
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
            problems.append(f"{path} names {file!r}, which is not the name of a file in its folder")
            continue
        try:
            there = _tensors_in(path.absolute().with_name(file))
        except FileFormatError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{path} assigns the tensor {name} to {file}, which does not have it" for name in names if name not in there
        ]
        found |= {name: there[name] for name in names if name in there}
    refuse(problems, FileFormatError)
    return found


def _weight_map(path: Path) -> Mapping[str, str]:
    """Read the file name of each tensor from an index."""
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
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
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
        raise FileFormatError(f"{file} is damaged or of another kind: {error}") from error


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, such as ``64 x 784``."""
    return " x ".join(map(str, shape)) or "scalar"
