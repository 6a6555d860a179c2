"""Conversion of input batches, arrays of samples x features, to the forms that sessions take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network.checks import MAX_WIDTH, as_float32, check_real, dense_array
from fsd_inference.network.sparse_arrays import SparseParts, csr_from_blocks, csr_from_dense

_MAX_EMPTY_SAMPLES = 1 << 24  # a batch may have this many samples, even if all are empty


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
        return inputs_from_parts(SparseParts.of(x, what), features, what)
    check_shape(x.shape, features, what)
    check_real(x.dtype, what)
    return inputs_from_csr(csr_from_dense(x, what), what)


def as_batch(x: Any, features: int, *, what: str = "the input") -> sparse.csr_array | NDArray[np.float32]:
    """Convert a sparse array like `as_inputs`, and an array_like to an aligned float32 array in C or Fortran order.

    A dense array is copied only if its type or order must change. Its values may still be infinite or NaN.

    Raises
    ------
    InputError
        As of `as_inputs`, but for dense values that are not finite.
    """
    if bool(sparse.issparse(x)):
        return as_inputs(x, features, what=what)
    array = dense_array(x, what)
    if array.ndim != 2:
        raise InputError(f"{what} must be 2-D, samples x features, not {array.ndim}-D")
    check_shape(array.shape, features, what)
    check_real(array.dtype, what)
    batch = as_float32(array)
    flags = batch.flags
    if flags.aligned and (flags.c_contiguous or flags.f_contiguous):
        return batch
    return np.array(batch, order="C")


def inputs_from_parts(parts: SparseParts, features: int | None, what: str) -> sparse.csr_array:
    """Convert the parts of a sparse array to the form of `load_inputs`; errors are those of `as_inputs`."""
    check_shape(parts.shape, features, what)
    check_real(parts.data.dtype, what)
    check_samples(parts.shape[0], parts.data.size, what)
    return inputs_from_csr(parts.to_csr(what), what)


def inputs_from_blocks(blocks: Iterable[NDArray[Any]], width: int, features: int | None, what: str) -> sparse.csr_array:
    """Convert consecutive dense blocks of samples x `width` to the form of `load_inputs`; errors as of `as_inputs`."""
    check_shape((1, width), features, what)
    csr = csr_from_blocks(blocks, width, what)
    check_shape((csr.shape[0], width), features, what)
    return inputs_from_csr(csr, what)


def inputs_from_csr(csr: sparse.csr_array, what: str) -> sparse.csr_array:
    """Return float32 CSR without stored zeros, with ascending int32 indices; `csr` may be changed in place.

    Raises
    ------
    InputError
        If it has more values than int32 indices can address.
    """
    csr.eliminate_zeros()
    if csr.nnz > MAX_WIDTH:
        raise InputError(f"{what} has {csr.nnz} values other than 0; split it into batches of at most {MAX_WIDTH}")
    csr.sort_indices()
    csr.indices, csr.indptr = csr.indices.astype(np.int32, copy=False), csr.indptr.astype(np.int32, copy=False)
    return csr


def check_shape(shape: tuple[int, ...], features: int | None, what: str) -> None:
    """Raise InputError unless both sizes fit int32 and there are as many features as the network takes."""
    samples, width = shape
    if not (1 <= samples <= MAX_WIDTH and 1 <= width <= MAX_WIDTH):
        raise InputError(f"{what} must have 1 to {MAX_WIDTH} samples and features, not {samples} x {width}")
    if features is not None and width != features:
        raise InputError(f"{what} has {width} features per sample, but the network takes {features}")


def check_samples(samples: int, values: int, what: str) -> None:
    """Reject a sample count that is far above the number of values, before memory is allocated per sample."""
    if samples > max(_MAX_EMPTY_SAMPLES, values):
        raise InputError(f"{what} has {samples} samples, but only {values} values; leave out the empty samples")
