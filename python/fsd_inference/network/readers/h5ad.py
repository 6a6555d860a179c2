"""Inputs in an AnnData file (.h5ad): its matrix X, read with h5py.

The HDF5 library itself crashes on some damaged files, so read only files from sources that you trust.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import check_real, shown
from fsd_inference.network.inputs import check_shape, inputs_from_blocks, inputs_from_parts
from fsd_inference.network.readers.libraries import library
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES, INDEX_ARRAYS, SparseParts

_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}  # the last two: before AnnData 0.7


def read_h5ad(file: Path, features: int | None) -> sparse.csr_array:
    """Read X, cells x genes, of an .h5ad file: dense, CSR or CSC.

    Raises
    ------
    FileFormatError
        If it is damaged, or has no X of these encodings.
    InputError
        If a value is not finite in float32, or a cell does not have `features` features.
    SettingError
        If h5py is not installed.
    """
    h5py = library("h5py", str(file))
    try:
        with h5py.File(file, "r") as opened:
            if "X" not in opened:
                raise FileFormatError(f"{file} has no X; store the inputs as X of an AnnData object")
            x = opened["X"]
            if isinstance(x, h5py.Group):
                return inputs_from_parts(_parts(x, features, file), features, str(file))
            if not isinstance(x, h5py.Dataset):
                raise FileFormatError(f"{file}: X is neither an array nor a group of arrays")
            return _dense(x, features, str(file))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FileFormatError(f"{file} is damaged or of another format: {' '.join(str(error).split())}") from error


def _dense(x: Any, features: int | None, what: str) -> sparse.csr_array:
    if x.ndim != 2:
        raise FileFormatError(f"{what}: X is {x.ndim}-D; inputs are 2-D, samples x features")
    check_shape(x.shape, features, what)
    check_real(x.dtype, what)
    rows, width = x.shape
    return inputs_from_blocks(_blocks(x, max(1, BLOCK_ENTRIES // width), rows), width, features, what)


def _blocks(x: Any, step: int, rows: int) -> Iterator[NDArray[Any]]:
    for start in range(0, rows, step):
        yield x[start : start + step]


def _parts(x: Any, features: int | None, file: Path) -> SparseParts:
    encoding = x.attrs.get("encoding-type", x.attrs.get("h5sparse_format", b""))
    kind = _SPARSE.get(encoding.decode() if isinstance(encoding, bytes) else str(encoding))
    if kind is None:
        raise FileFormatError(
            f"{file}: X is of encoding-type {shown(encoding)}, but must be array, csr_matrix or csc_matrix"
        )
    shape = np.asarray(x.attrs["shape" if "shape" in x.attrs else "h5sparse_shape"])
    if shape.shape != (2,) or shape.dtype.kind not in "iu":
        raise FileFormatError(f"{file}: the shape of X is not two whole numbers")
    rows, columns = shape.tolist()
    check_shape((rows, columns), features, str(file))
    major = rows if kind == "csr" else columns
    data, indices, indptr = (getattr(x[name], "shape", None) for name in ("data", "indices", "indptr"))
    if data is None or len(data) != 1 or indices != data or indptr != (major + 1,):
        raise FileFormatError(f"{file}: the arrays of X do not have the sizes that its shape requires")
    index = {name: x[name][...] for name in INDEX_ARRAYS[kind]}
    return SparseParts(kind, (rows, columns), x["data"][...], index, FileFormatError)
