"""Safe readers of untrusted .npy and .npz files: plain numbers only, sizes checked before memory is allocated."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

_HEADER_BYTES = 10_000
_MAX_DEFLATE_RATIO = 1032  # the maximum compression ratio of deflate; a member that declares more is invalid
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """The header of an .npy file; `offset` is the position of the data in bytes."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        count = 1
        for size in self.shape:
            count *= size
        return count * self.dtype.itemsize


def map_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Memory-map the array of an .npy file, read-only.

    Raises
    ------
    FileFormatError
        If it is not an .npy file of plain numbers, or is truncated.
    """
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            header = _read_header(stream, str(file))
        if size != header.offset + header.nbytes:
            raise FileFormatError(
                f"{file} has {size} bytes, but its array of shape {header.shape} needs {header.offset + header.nbytes}"
            )
        if not header.nbytes:  # which cannot be mapped
            try:
                return np.empty(header.shape, header.dtype)
            except ValueError as error:
                raise FileFormatError(f"{file} claims the shape {header.shape}, which no array can have") from error
        mapped: NDArray[Any] = np.memmap(
            file, header.dtype, mode="r", offset=header.offset, shape=header.shape, order=header.order
        )
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    return mapped


def read_npz(path: str | os.PathLike[str], only: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz file by name: all, or those that are in `only`.

    Raises
    ------
    FileFormatError
        If it is not a zip file of .npy members of plain numbers, or is truncated or damaged.
    """
    file = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if only is not None and name not in only:
                    continue
                where = f"{file}, member {member.filename}"
                if member.file_size > _MAX_DEFLATE_RATIO * (member.compress_size + 1):
                    raise FileFormatError(f"{where}: declares more data than its compressed size can hold")
                with archive.open(member) as stream:
                    header = _read_header(stream, where)
                    if member.file_size != header.offset + header.nbytes:
                        raise FileFormatError(f"{where}: its size does not fit its array of shape {header.shape}")
                    data = stream.read()  # to the end, where zipfile verifies the checksum
                arrays[name] = np.frombuffer(data, header.dtype).reshape(header.shape, order=header.order)
    except _ZIP_ERRORS as error:
        raise FileFormatError(f"{file} is damaged or cannot be read: {error}") from error
    return arrays


def _read_header(stream: IO[bytes], where: str) -> NpyHeader:
    """Read an .npy header up to the data, with regular expressions because NumPy evaluates it as a Python literal."""
    prefix = stream.read(8)
    if prefix[:6] != NPY_MAGIC or len(prefix) < 8:
        raise FileFormatError(f"{where}: not an .npy array")
    length_bytes = 2 if prefix[6] == 1 else 4
    length = int.from_bytes(stream.read(length_bytes), "little")
    if length > _HEADER_BYTES:
        raise FileFormatError(f"{where}: its header is too long for an array of numbers")
    text = stream.read(length).decode("latin-1")
    descr = re.search(r"'descr': *'([<>|=]?[biufcSU]\d{1,3})'", text)
    order = re.search(r"'fortran_order': *(True|False)", text)
    shape = re.search(r"'shape': *\(((?:\d{1,18}, *)*(?:\d{1,18})?)\)", text)
    if not (descr and order and shape and len(text) == length):
        raise FileFormatError(f"{where}: not an array of plain numbers (damaged, or it holds Python objects)")
    try:
        dtype = np.dtype(descr[1])
    except TypeError:
        raise FileFormatError(f"{where}: unknown type of numbers {descr[1]}") from None
    sizes = tuple(int(size) for size in shape[1].replace(" ", "").split(",") if size)
    if not dtype.itemsize:
        raise FileFormatError(f"{where}: its entries have a size of 0 bytes")
    return NpyHeader(dtype, sizes, "F" if order[1] == "True" else "C", 8 + length_bytes + length)
