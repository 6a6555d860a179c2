"""An incremental writer and a zero-copy, validating reader of safetensors files."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import load_json

_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
}
Bytes: TypeAlias = bytes | bytearray | mmap.mmap
"""The content of a file, or a part of it."""

_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_ALIGNMENT = 8
_HEADER_LIMIT = 100_000_000  # the limit of safetensors itself


class TensorSpool:
    """Writes a safetensors file incrementally: arrays are spooled to disk until all their sizes are known.

    Parameters
    ----------
    path : Path
        The final file; arrays are spooled to ``path`` + ``.spool``. No file stays open between calls.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spool = path.with_name(path.name + ".spool")
        self._header: dict[str, dict[str, Any]] = {}
        self._size = 0
        self._spool.touch(exist_ok=False)

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> str:
        """Append arrays, aligned by writing those with the largest items first and padding the total to 8 bytes.

        Returns
        -------
        str
            Hexadecimal SHA-256 of what was appended, without the padding.
        """
        hashed = hashlib.sha256()
        ordered = sorted(arrays.items(), key=lambda item: -item[1].itemsize)
        padding = -sum(array.nbytes for array in arrays.values()) % _ALIGNMENT
        if padding:
            ordered.append((f"padding.{self._size}", np.zeros(padding, np.uint8)))
        with self._spool.open("ab") as file:
            for name, array in ordered:
                little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                self._header[name] = {
                    "dtype": _NAMES[little.dtype],
                    "shape": list(little.shape),
                    "data_offsets": [self._size, self._size + little.nbytes],
                }
                self._size += little.nbytes
                file.write(little.data)
                if name in arrays:
                    hashed.update(little.data)
        return hashed.hexdigest()

    @property
    def size(self) -> int:
        """Bytes appended so far."""
        return self._size

    def finish(self, metadata: Mapping[str, str]) -> int:
        """Write the final file, delete the spool file, and return the position of the first array in the file."""
        header = json.dumps({"__metadata__": dict(metadata), **self._header}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        with self._path.open("wb") as file, self._spool.open("rb") as spool:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            shutil.copyfileobj(spool, file, 1 << 20)
        self._spool.unlink()
        return 8 + len(header)


class Tensor(NamedTuple):
    """The type of a tensor, and its place in bytes from the start of the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int

    def array(self, data: Bytes, offset: int = 0) -> NDArray[Any]:
        """Return a read-only view of this tensor in `data`, where it starts at `offset`."""
        array = np.frombuffer(data, self.dtype, math.prod(self.shape), offset).reshape(self.shape)
        array.flags.writeable = False
        return array


def read_tensors(data: Bytes, what: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Return the metadata and the arrays of a safetensors file; the arrays are read-only views of `data`.

    Raises
    ------
    FileFormatError
        The data is not a valid safetensors file; `what` names the file in the message.
    """
    metadata, tensors = read_header(data, len(data), what)
    return metadata, {tensor.name: tensor.array(data, tensor.start) for tensor in tensors}


def read_header(data: Bytes, size: int, what: str) -> tuple[dict[str, str], list[Tensor]]:
    """Return the metadata and the tensors of a safetensors file, in the order in which they are stored.

    Parameters
    ----------
    data : bytes
        The start of the file, at least up to the end of its header.
    size : int
        Size of the whole file in bytes.
    what : str
        Name of the file, for messages.

    Raises
    ------
    FileFormatError
        The header is not valid, or does not describe a file of this size.
    """
    if len(data) < 8:
        raise FileFormatError(f"{what}: {len(data)} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, _HEADER_LIMIT):
        raise FileFormatError(f"{what}: truncated, or not a safetensors file (header of {length} bytes)")
    first = 8 + length
    try:
        header = load_json(data[8:first])
        metadata = header.pop("__metadata__", {})
        tensors = [
            Tensor(name, _DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        ]
        tensors.sort(key=lambda tensor: (tensor.start, tensor.stop))
        text = all(isinstance(value, str) for value in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{what}: its header is not that of a safetensors file") from error
    if not text:
        raise FileFormatError(f"{what}: its metadata holds something other than text")
    end = 0
    for name, dtype, shape, start, stop in tensors:
        if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
            raise FileFormatError(f"{what}: tensor {name} has an invalid shape or offset")
        if start != end or stop - start != math.prod(shape) * dtype.itemsize or first + stop > size:
            raise FileFormatError(
                f"{what}: the offsets of tensor {name} do not match its shape, or the file is truncated"
            )
        end = stop
    if first + end != size:
        raise FileFormatError(f"{what}: {size - first - end} bytes follow the last tensor")
    return metadata, [tensor._replace(start=first + tensor.start, stop=first + tensor.stop) for tensor in tensors]
