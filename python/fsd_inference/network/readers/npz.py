"""Inputs in an .npz file: packed bits, or a sparse array saved by SciPy or PyData sparse."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.inputs import inputs_from_blocks, inputs_from_parts
from fsd_inference.network.numpy_files import read_npz
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES, INDEX_ARRAYS, SparseParts

Arrays = Mapping[str, NDArray[Any]]


def read_npz_inputs(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in an .npz file; its member names identify the kind."""
    arrays, what = read_npz(file), str(file)
    if "bits" in arrays:
        return _from_bits(arrays["bits"], features, what)
    return inputs_from_parts(saved_parts(arrays, what), features, what)


def saved_parts(arrays: Arrays, what: str) -> SparseParts:
    """Return the parts of the sparse array in a file, as SciPy or PyData's sparse saved it.

    Raises
    ------
    FileFormatError
        If the file, called `what`, holds anything else.
    """
    try:
        return _pydata_parts(arrays, what) if "fill_value" in arrays else _scipy_parts(arrays, what)
    except KeyError as error:
        raise FileFormatError(f"{what} is not a complete sparse array: it has no array {error}") from error


def _from_bits(bits: NDArray[Any], features: int | None, what: str) -> sparse.csr_array:
    if bits.dtype != np.uint8 or bits.ndim != 2 or not bits.size:
        raise FileFormatError(f"{what}: the array 'bits' must be uint8, samples x bytes, and not empty")
    width = 8 * bits.shape[1] if features is None else features
    if not 8 * (bits.shape[1] - 1) < width <= 8 * bits.shape[1]:
        raise InputError(f"{what} has {8 * bits.shape[1]} bits per sample, but the network takes {width} features")
    step = max(1, BLOCK_ENTRIES // width)
    blocks = (np.unpackbits(bits[start : start + step], axis=1, count=width) for start in range(0, len(bits), step))
    return inputs_from_blocks(blocks, width, features, what)


def _scipy_parts(arrays: Arrays, what: str) -> SparseParts:
    """Return the parts of a sparse array written by `scipy.sparse.save_npz` of any release."""
    if "format" not in arrays:
        raise FileFormatError(
            f"{what} does not hold a sparse array but {', '.join(map(repr, arrays))}; "
            "save a sparse one with scipy.sparse.save_npz, a dense one with numpy.save"
        )
    kind = _text(arrays["format"])
    if kind not in INDEX_ARRAYS:
        raise FileFormatError(f"{what} holds a sparse array of unknown format; use one of {', '.join(INDEX_ARRAYS)}")
    shape, data = _shape(arrays["shape"], what), arrays["data"]
    if kind == "coo" and "coords" in arrays:
        index = _coordinates(arrays["coords"], what)
    else:
        index = {name: arrays[name] for name in INDEX_ARRAYS[kind]}
    return SparseParts(kind, shape, data, index, FileFormatError)


def _pydata_parts(arrays: Arrays, what: str) -> SparseParts:
    """Return the parts of a COO or GCXS array written by `sparse.save_npz`, with or without the member ``format``."""
    fill_value = arrays["fill_value"]
    if fill_value.size != 1 or fill_value.dtype.kind not in "biufc" or fill_value.item() != 0:
        raise FileFormatError(f"{what}: the array 'fill_value' must be 0, as entries that are not stored are 0")
    shape, data = _shape(arrays["shape"], what), arrays["data"]
    if "coords" in arrays:
        return SparseParts("coo", shape, data, _coordinates(arrays["coords"], what), FileFormatError)
    axes = arrays["compressed_axes"]
    if axes.dtype.kind not in "iu" or axes.size != 1 or int(axes.item()) not in (0, 1):
        raise FileFormatError(f"{what}: the array 'compressed_axes' must be 0 (rows) or 1 (columns)")
    kind = "csc" if int(axes.item()) else "csr"
    return SparseParts(kind, shape, data, {name: arrays[name] for name in INDEX_ARRAYS[kind]}, FileFormatError)


def _shape(shape: NDArray[Any], what: str) -> tuple[int, int]:
    if shape.dtype.kind not in "iu" or shape.ndim != 1:
        raise FileFormatError(f"{what} is not a valid sparse array: its shape is not a list of whole numbers")
    if shape.size != 2:
        raise FileFormatError(f"{what} holds a {shape.size}-D sparse array; inputs are 2-D, samples x features")
    rows, columns = shape.tolist()
    return rows, columns


def _coordinates(coordinates: NDArray[Any], what: str) -> dict[str, NDArray[Any]]:
    if coordinates.ndim != 2 or len(coordinates) != 2:
        raise FileFormatError(f"{what} is not a valid sparse array: its coords are not two lists of numbers")
    return dict(zip(INDEX_ARRAYS["coo"], coordinates, strict=True))


def _text(array: NDArray[Any]) -> str:
    return str(array.astype("S").item(), "latin-1") if array.dtype.kind in "SU" and array.size == 1 else ""
