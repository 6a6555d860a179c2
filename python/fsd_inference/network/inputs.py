"""Inputs and outputs: samples x features, as users hand them in and get them back."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.atomic import atomic_file
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import rounded_float32
from fsd_inference.network.layer import MAX_WIDTH
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC, map_npy, read_npz

_BLOCK_ENTRIES = 1 << 22


def load_inputs(path: str | os.PathLike[str], features: int | None = None) -> sparse.csr_array:
    """Read a batch of samples.

    Parameters
    ----------
    path : path-like
        A scipy sparse `.npz` (csr, csc or coo), a dense `.npy`, or an `.npz` with the key ``bits``: uint8, each bit a
        feature of 0 or 1, as ``np.packbits(x, axis=1)`` makes it.
    features : int, optional
        What the network takes; a batch of another width is refused, and padding bits are cut off.

    Returns
    -------
    csr_array of float32, shape (samples, features)
        Indices int32 and ascending, without stored zeros.

    Raises
    ------
    FileFormatError
        If the file is missing, truncated, damaged or of another kind.
    InputError
        If its values are not finite as float32, or there are not `features` of them a sample.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(NPY_MAGIC))
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    try:
        if magic == NPY_MAGIC:
            return as_inputs(map_npy(file), features, what=str(file))
        if magic.startswith(ZIP_MAGIC):
            arrays = read_npz(file)
            if "bits" in arrays:
                return _from_bits(arrays["bits"], features, str(file))
            return as_inputs(_sparse_from(arrays, str(file)), features, what=str(file))
    except MemoryError as error:
        raise FileFormatError(f"{file} holds more than fits in memory") from error
    kind = "empty" if not magic else "neither an .npy nor an .npz file"
    raise FileFormatError(f"{file} is {kind}; inputs are a scipy sparse .npz or a dense .npy")


def as_inputs(x: Any, features: int | None = None, *, what: str = "the input") -> sparse.csr_array:
    """Return `x`, a sparse array or array_like of samples x features, as `load_inputs` does; `x` is not changed.

    Raises
    ------
    InputError
        If it is not 2-D, empty, not finite as float32, or there are not `features` of them a sample.
    """
    is_sparse = bool(sparse.issparse(x))  # a name, so that x stays Any for the type checker
    if not is_sparse:
        try:
            x = np.asarray(x)
        except ValueError as error:
            raise InputError(f"{what} is not an array: {error}") from error
    if x.ndim != 2:
        raise InputError(f"{what} must be 2-D, samples x features, not {x.ndim}-D")
    samples, width = x.shape
    if not (1 <= samples <= MAX_WIDTH and 1 <= width <= MAX_WIDTH):
        raise InputError(f"{what} must have 1 to {MAX_WIDTH} samples and features, not {samples} x {width}")
    if features is not None and width != features:
        raise InputError(f"{what} has {width} features a sample, but the network takes {features}")
    if x.dtype.kind not in "biuf":
        raise InputError(f"{what} must be real numbers, not values of type {x.dtype}")
    if not is_sparse:
        step = max(1, _BLOCK_ENTRIES // width)
        return csr_from_blocks((x[start : start + step] for start in range(0, samples, step)), width, what)
    csr = sparse.csr_array(x, copy=True)
    csr.sum_duplicates()
    csr.data = rounded_float32(csr.data, what)
    csr.eliminate_zeros()
    return _with_int32(csr, what)


def csr_from_blocks(blocks: Iterable[NDArray[Any]], features: int, what: str = "the input") -> sparse.csr_array:
    """Return dense blocks of samples x features, one above the other, as float32 CSR; zeros are left out."""
    counts, columns, values = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    for block in blocks:
        rounded = rounded_float32(block, what)
        mask = rounded != 0
        count = np.count_nonzero(mask, axis=1)
        place = np.flatnonzero(mask)
        counts.append(count)
        columns.append((place - np.repeat(np.arange(len(block)) * features, count)).astype(np.int32))
        values.append(rounded[mask])
    indptr = np.cumsum(np.concatenate(counts))
    shape = (indptr.size - 1, features)
    return _with_int32(sparse.csr_array((np.concatenate(values), np.concatenate(columns), indptr), shape=shape), what)


def save_outputs(path: str | os.PathLike[str], outputs: sparse.csr_array) -> int:
    """Write a CSR array where `scipy.sparse.load_npz` finds it; the file appears when it is complete.

    Returns
    -------
    int
        Bytes that were written.

    Raises
    ------
    InputError, OutputError
        If the place cannot be written.
    """
    members: dict[str, NDArray[Any]] = {
        "indices": outputs.indices,
        "indptr": outputs.indptr,
        "format": np.array(b"csr"),
        "shape": np.array(outputs.shape),
        "data": outputs.data,
        "_is_array": np.array(True),
    }
    with atomic_file(path) as beside:
        # The fastest level: activations have many equal values, and a slower one gains little.
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in members.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        return beside.stat().st_size


def _from_bits(bits: NDArray[Any], features: int | None, what: str) -> sparse.csr_array:
    if bits.dtype != np.uint8 or bits.ndim != 2 or not bits.size:
        raise FileFormatError(f"{what}: the array 'bits' must be uint8, samples x bytes, and not empty")
    width = 8 * bits.shape[1] if features is None else features
    if not 8 * (bits.shape[1] - 1) < width <= 8 * bits.shape[1]:
        raise InputError(f"{what} has {8 * bits.shape[1]} bits a sample, but the network takes {width} features")
    step = max(1, _BLOCK_ENTRIES // width)
    blocks = (np.unpackbits(bits[start : start + step], axis=1, count=width) for start in range(0, len(bits), step))
    return csr_from_blocks(blocks, width, what)


def _sparse_from(arrays: Mapping[str, NDArray[Any]], what: str) -> sparse.csr_array:
    """Return the sparse array that `scipy.sparse.save_npz` wrote, its structure fully checked."""
    wrong = [
        name for name in ("indices", "indptr", "row", "col") if name in arrays and arrays[name].dtype.kind not in "iu"
    ]
    if wrong:
        raise FileFormatError(f"{what} is not a valid sparse array: {wrong[0]} are not whole numbers")
    try:
        kind, shape, data = arrays["format"].item(), tuple(arrays["shape"].tolist()), arrays["data"]
        if kind == b"coo":
            return sparse.coo_array((data, (arrays["row"], arrays["col"])), shape=shape).tocsr()
        if kind not in (b"csr", b"csc"):
            raise FileFormatError(f"{what} holds a sparse array that is not csr, csc or coo; save it with .tocsr()")
        array = (sparse.csr_array if kind == b"csr" else sparse.csc_array)(
            (data, arrays["indices"], arrays["indptr"]), shape=shape
        )
        array.check_format(full_check=True)
        return array.tocsr()
    except KeyError as error:
        raise FileFormatError(f"{what} is not a scipy sparse array: it has no array {error}") from error
    except (ValueError, TypeError, OverflowError, IndexError) as error:
        raise FileFormatError(f"{what} is not a valid sparse array: {error}") from error


def _with_int32(csr: sparse.csr_array, what: str) -> sparse.csr_array:
    if csr.nnz > MAX_WIDTH:
        raise InputError(f"{what} has {csr.nnz} values other than 0; split it into batches of at most {MAX_WIDTH}")
    csr.sort_indices()
    csr.indices, csr.indptr = csr.indices.astype(np.int32, copy=False), csr.indptr.astype(np.int32, copy=False)
    return csr
