"""Tensors of a model, restored from the forms in which state dicts store them.

- Plain: ``NAME``.
- Pruned by PyTorch: ``NAME_orig`` times ``NAME_mask``.
- Compressed by compressed-tensors in its format "sparse-bitmask": ``NAME.compressed`` holds the non-zero values row by
  row; ``NAME.bitmask`` one bit per weight, least significant bit of a byte first, rows padded to whole bytes;
  ``NAME.row_offsets`` the index of each row's first value; ``NAME.shape`` rows and columns. NAME is ``fc1`` for the
  tensor ``fc1.weight``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.importing.tensor_files import StoredTensor, shape_text
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES

_INTEGERS = ("I32", "I64")
FLOATS = ("F64", "F32", "F16", "BF16")

_BITMASK_PARTS = (".compressed", ".bitmask", ".row_offsets", ".shape")


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """A tensor of a model.

    Attributes
    ----------
    name : str
        Name of the dense tensor in the model's state dict.
    dtype : str
        Type of its values, as named by safetensors.
    shape : tuple of int
        Shape of the dense tensor.
    stored : tuple of str
        Names of the stored tensors that it is restored from.
    read : callable
        Returns the tensor, as an array or a SciPy CSR array.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    stored: tuple[str, ...]
    read: Callable[[], Any]


def model_tensors(files: Mapping[str, StoredTensor]) -> dict[str, ModelTensor]:
    """Return the tensors of a model, by name.

    Parameters
    ----------
    files : mapping of str to StoredTensor
        All tensors in the model's files.

    Raises
    ------
    FileFormatError
        If the stored parts of a tensor do not match each other.
    """
    found: dict[str, ModelTensor] = {}
    for name in files:
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in files:
            tensor = _pruned(name.removesuffix("_orig"), files)
        elif name.endswith(".bitmask") and all(
            name.removesuffix(".bitmask") + part in files for part in _BITMASK_PARTS
        ):
            tensor = _compressed(name.removesuffix(".bitmask"), files)
        else:
            continue
        found[tensor.name] = tensor
    parts = {name for tensor in found.values() for name in tensor.stored}
    plain = {
        name: ModelTensor(name, stored.dtype, stored.shape, (name,), stored.read)
        for name, stored in files.items()
        if name not in parts
    }
    for name in plain.keys() & found.keys():
        raise FileFormatError(f"{files[name].file} has {name} twice: plain and as {', '.join(found[name].stored)}")
    return plain | found


def _pruned(name: str, files: Mapping[str, StoredTensor]) -> ModelTensor:
    original, mask = files[f"{name}_orig"], files[f"{name}_mask"]
    if original.shape != mask.shape:
        raise FileFormatError(
            f"{original.file}: {original.name} ({shape_text(original.shape)}) and {mask.name} "
            f"({shape_text(mask.shape)}) have different shapes"
        )

    def read() -> NDArray[Any]:
        with np.errstate(invalid="ignore"):  # infinity times 0: a NaN, which a layer refuses with its position
            return np.asarray(original.read() * mask.read())

    return ModelTensor(name, original.dtype, original.shape, (original.name, mask.name), read)


def _compressed(prefix: str, files: Mapping[str, StoredTensor]) -> ModelTensor:
    values, bits, offsets, shape = (files[prefix + part] for part in _BITMASK_PARTS)
    is_shape = shape.shape == (2,) and shape.dtype in _INTEGERS
    rows, columns = shape.read().tolist() if is_shape else (0, 0)
    if rows < 1 or columns < 1:
        raise FileFormatError(f"{shape.file}: {shape.name} is not the shape of a matrix, two positive integers")
    if bits.shape != (rows, -(-columns // 8)) or bits.dtype != "U8" or offsets.shape != (rows,):
        raise FileFormatError(
            f"{bits.file}: {bits.name} ({shape_text(bits.shape)}, {bits.dtype}) and {offsets.name} "
            f"({shape_text(offsets.shape)}) do not match a matrix of {rows} x {columns}"
        )

    def read() -> sparse.csr_array:
        return _decompressed(prefix, (rows, columns), values, bits.read(), offsets.read())

    name = prefix if prefix.endswith(".weight") else f"{prefix}.weight"
    return ModelTensor(name, values.dtype, (rows, columns), (values.name, bits.name, offsets.name, shape.name), read)


def _decompressed(
    prefix: str, shape: tuple[int, int], stored: StoredTensor, bits: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> sparse.csr_array:
    """Return the matrix with the values in `stored` at the positions set in `bits`."""
    rows, columns = shape
    values = stored.read()
    if values.dtype == np.float16:  # not supported by SciPy
        values = values.astype(np.float32)
    counts = np.empty(rows, np.int64)
    places = []
    step = max(1, BLOCK_ENTRIES // columns)
    for start in range(0, rows, step):
        block = np.unpackbits(bits[start : start + step], axis=1, count=columns, bitorder="little")
        counts[start : start + step] = np.count_nonzero(block, axis=1)
        places.append(np.nonzero(block)[1].astype(np.int32))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    if values.shape != (indptr[-1],) or not np.array_equal(offsets, indptr[:-1]):
        raise FileFormatError(
            f"{stored.file}: {prefix}.bitmask marks {indptr[-1]} values, which does not match the {values.size} of "
            f"{stored.name} and {prefix}.row_offsets; the file is damaged or of another version of the format"
        )
    return sparse.csr_array((values, np.concatenate(places), indptr), shape=shape)
