"""Reading and conversion of input batches, and writing of outputs: arrays of samples x features."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.atomic import atomic_file
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import MAX_WIDTH, check_real, dense_array
from fsd_inference.network.numpy_files import NPY_MAGIC, ZIP_MAGIC, map_npy, read_npz
from fsd_inference.network.sparse_arrays import (
    BLOCK_ENTRIES,
    INDEX_ARRAYS,
    SparseParts,
    csr_from_blocks,
    csr_from_dense,
)
from fsd_inference.network.tsv import Entries

_MAX_EMPTY_SAMPLES = 1 << 24  # a batch may have this many samples, even if all are empty


def load_inputs(path: str | os.PathLike[str], features: int | None = None) -> sparse.csr_array:
    """Read a batch of samples.

    Parameters
    ----------
    path : path-like
        One of

        - a dense ``.npy``;
        - an ``.npz`` of ``scipy.sparse.save_npz``, in any of its formats;
        - an ``.npz`` with the key ``bits``: uint8, each bit a feature of 0 or 1, from ``np.packbits(x, axis=1)``;
        - a ``.tsv`` or ``.tsv.gz`` of the Graph Challenge: lines of sample, feature and value, the first two counted
          from 1, separated by tabs or spaces. The largest sample number is the number of samples.
    features : int, optional
        Number of features that the network takes: a batch of another width is an error, and padding bits are cut off.
        If not given, the largest feature number of a ``.tsv`` is its number of features.

    Returns
    -------
    csr_array of float32, shape (samples, features)
        Indices int32 and ascending, without stored zeros.

    Raises
    ------
    FileFormatError
        If the file is missing, truncated, damaged or of an unknown format.
    InputError
        If its values are not finite in float32, or a sample does not have `features` features.
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
            return _from_parts(_saved_parts(arrays, str(file)), features, str(file))
        if file.name.lower().endswith((".tsv", ".tsv.gz")):
            return _from_text(file, features)
    except MemoryError as error:
        raise FileFormatError(f"{file} holds more than fits in memory") from error
    kind = "empty" if not magic else "neither an .npy nor an .npz file, nor named .tsv or .tsv.gz"
    raise FileFormatError(
        f"{file} is {kind}; inputs are a scipy sparse .npz, a dense .npy or the Graph Challenge's .tsv"
    )


def as_inputs(x: Any, features: int | None = None, *, what: str = "the input") -> sparse.csr_array:
    """Convert a sparse array or array_like of samples x features to the form of `load_inputs`; `x` is not changed.

    Raises
    ------
    InputError
        If `x` is not 2-D, is empty, has masked values or values that are not finite in float32, or a sample does not
        have `features` features.
    """
    is_sparse = bool(sparse.issparse(x))  # in a variable, so that the type checker keeps x as Any
    if not is_sparse:
        x = dense_array(x, what)
    if x.ndim != 2:
        raise InputError(f"{what} must be 2-D, samples x features, not {x.ndim}-D")
    if is_sparse:
        return _from_parts(SparseParts.of(x, what), features, what)
    _check_shape(x.shape, features, what)
    check_real(x.dtype, what)
    return _with_int32(csr_from_dense(x, what), what)


def save_outputs(path: str | os.PathLike[str], outputs: sparse.csr_array) -> int:
    """Write a CSR array as a file for `scipy.sparse.load_npz`; the write is atomic.

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    InputError, OutputError
        If `path` cannot be written.
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
        # The fastest level: activations have many equal values, so slower levels gain little.
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
        raise InputError(f"{what} has {8 * bits.shape[1]} bits per sample, but the network takes {width} features")
    step = max(1, BLOCK_ENTRIES // width)
    blocks = (np.unpackbits(bits[start : start + step], axis=1, count=width) for start in range(0, len(bits), step))
    return _with_int32(csr_from_blocks(blocks, width, what), what)


def _from_text(file: Path, features: int | None) -> sparse.csr_array:
    limits = (MAX_WIDTH, MAX_WIDTH if features is None else features)
    entries = Entries(file, ("sample", "feature", "value"), limits)
    shape = (int(entries.first.max()) + 1, int(entries.second.max()) + 1 if features is None else features)
    _check_samples(shape[0], entries.values.size, str(file))
    csr = entries.to_csr(shape)
    csr.eliminate_zeros()
    return _with_int32(csr, str(file))


def _saved_parts(arrays: Mapping[str, NDArray[Any]], what: str) -> SparseParts:
    """Return the parts of a sparse array written by `scipy.sparse.save_npz` of any release."""
    if "format" not in arrays:
        raise FileFormatError(
            f"{what} does not hold a sparse array but {', '.join(map(repr, arrays))}; "
            "save a sparse one with scipy.sparse.save_npz, a dense one with numpy.save"
        )
    named = arrays["format"]
    kind = str(named.astype("S").item(), "latin-1") if named.dtype.kind in "SU" and named.size == 1 else ""
    if kind not in INDEX_ARRAYS:
        raise FileFormatError(f"{what} holds a sparse array of unknown format; use one of {', '.join(INDEX_ARRAYS)}")
    try:
        shape, data = arrays["shape"], arrays["data"]
        if shape.dtype.kind not in "iu" or shape.ndim != 1:
            raise FileFormatError(f"{what} is not a valid sparse array: its shape is not a list of whole numbers")
        if shape.size != 2:
            raise FileFormatError(f"{what} holds a {shape.size}-D sparse array; inputs are 2-D, samples x features")
        if kind == "coo" and "coords" in arrays:
            row, col = arrays["coords"]
            index = {"row": row, "col": col}
        else:
            index = {name: arrays[name] for name in INDEX_ARRAYS[kind]}
    except KeyError as error:
        raise FileFormatError(f"{what} is not a scipy sparse array: it has no array {error}") from error
    rows, columns = shape.tolist()
    return SparseParts(kind, (rows, columns), data, index, FileFormatError)


def _from_parts(parts: SparseParts, features: int | None, what: str) -> sparse.csr_array:
    _check_shape(parts.shape, features, what)
    check_real(parts.data.dtype, what)
    _check_samples(parts.shape[0], parts.data.size, what)
    csr = parts.to_csr(what)
    csr.eliminate_zeros()
    return _with_int32(csr, what)


def _check_shape(shape: tuple[int, ...], features: int | None, what: str) -> None:
    samples, width = shape
    if not (1 <= samples <= MAX_WIDTH and 1 <= width <= MAX_WIDTH):
        raise InputError(f"{what} must have 1 to {MAX_WIDTH} samples and features, not {samples} x {width}")
    if features is not None and width != features:
        raise InputError(f"{what} has {width} features per sample, but the network takes {features}")


def _check_samples(samples: int, values: int, what: str) -> None:
    """Reject a sample count that is far above the number of values, before memory is allocated per sample."""
    if samples > max(_MAX_EMPTY_SAMPLES, values):
        raise InputError(f"{what} has {samples} samples, but only {values} values; leave out the empty samples")


def _with_int32(csr: sparse.csr_array, what: str) -> sparse.csr_array:
    if csr.nnz > MAX_WIDTH:
        raise InputError(f"{what} has {csr.nnz} values other than 0; split it into batches of at most {MAX_WIDTH}")
    csr.sort_indices()
    csr.indices, csr.indptr = csr.indices.astype(np.int32, copy=False), csr.indptr.astype(np.int32, copy=False)
    return csr
