"""An incremental writer and a zero-copy, validating reader of safetensors files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError

_DTYPES = {
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
    "F32": np.dtype("<f4"),
}
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

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Append arrays, aligned by writing those with the largest items first and padding the total to 8 bytes."""
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

    def finish(self, metadata: Mapping[str, str]) -> Path:
        """Write the final file and delete the spool file."""
        header = json.dumps({"__metadata__": dict(metadata), **self._header}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % _ALIGNMENT)
        with self._path.open("wb") as file, self._spool.open("rb") as spool:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            shutil.copyfileobj(spool, file, 1 << 20)
        self._spool.unlink()
        return self._path


def read_tensors(data: bytes, what: str) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Return the metadata and the arrays of a safetensors file; the arrays are read-only views of `data`.

    Raises
    ------
    FileFormatError
        The data is not a valid safetensors file; `what` names the file in the message.
    """
    if len(data) < 8:
        raise FileFormatError(f"{what}: {len(data)} bytes are too few for a safetensors file")
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, _HEADER_LIMIT):
        raise FileFormatError(f"{what}: truncated, or not a safetensors file (header of {length} bytes)")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.pop("__metadata__", {})
        entries = [
            (name, _DTYPES[entry["dtype"]], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        ]
        entries.sort(key=lambda entry: (entry[3], entry[4]))
        text = all(isinstance(value, str) for value in metadata.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FileFormatError(f"{what}: its header is not that of a safetensors file") from error
    if not text:
        raise FileFormatError(f"{what}: its metadata holds something other than text")
    arrays, end = {}, 0
    for name, dtype, shape, start, stop in entries:
        if not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
            raise FileFormatError(f"{what}: tensor {name} has an invalid shape or offset")
        count = 1
        for n in shape:
            count *= n
        if start != end or stop - start != count * dtype.itemsize or 8 + length + stop > len(data):
            raise FileFormatError(
                f"{what}: the offsets of tensor {name} do not match its shape, or the file is truncated"
            )
        array = np.frombuffer(data, dtype, count, 8 + length + start).reshape(shape)
        array.flags.writeable = False
        arrays[name], end = array, stop
    if 8 + length + end != len(data):
        raise FileFormatError(f"{what}: {len(data) - 8 - length - end} bytes follow the last tensor")
    return metadata, arrays
