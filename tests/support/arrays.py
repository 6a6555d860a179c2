"""Arrays of every type, memory layout and sparse format, as test inputs."""

from __future__ import annotations

from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

KINDS = "?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g"
FORMATS = "csr", "csc", "coo", "bsr", "dia", "lil", "dok"
SAVED = "csr", "csc", "coo", "bsr", "dia"
# Halfway between two float32: what lies beyond float64 decides, so that rounding twice would show.
HALFWAY = np.longdouble(1) + np.longdouble(2) ** -24 + np.longdouble(2) ** -60


def dtypes() -> st.SearchStrategy[np.dtype[Any]]:
    orders = st.sampled_from("<>")
    return st.builds(lambda kind, order: np.dtype(kind).newbyteorder(order), st.sampled_from(KINDS), orders)


def values(dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        special = [value for value in (0, 1, 200, 2**24 + 1, 2**53 + 1, 2**62 + 2**38 + 1) if value <= limits.max]
        return st.sampled_from(special) | st.integers(int(limits.min), int(limits.max))
    special_floats: list[Any] = [0.0, -0.0, 0.1, 2.0**-24, 1e30, 1e300, np.nan, HALFWAY]
    plain = st.integers(-40, 40).map(lambda number: number / 8)
    return (plain | plain | st.sampled_from(special_floats)).map(lambda number: rounded(number, dtype))


def rounded(number: Any, dtype: np.dtype[Any]) -> Any:
    with np.errstate(over="ignore"):
        return dtype.type(number)


def compressed(major: Any, minor: Any, data: Any, size: int) -> tuple[Any, Any, Any]:
    order = np.argsort(major, kind="stable")
    return data[order], minor[order], np.concatenate([[0], np.bincount(major, minlength=size).cumsum()])


def made(form: str, kind: str, shape: tuple[int, int], rows: Any, columns: Any, data: Any) -> Any:
    """Return SciPy's array or matrix with these entries as they are, its values of a type that SciPy may not know."""
    make = getattr(sparse, f"{form}_{kind}")
    if form == "csr":
        stored, *index = compressed(rows, columns, data, shape[0])
        x = make((np.zeros(data.size), *index), shape=shape)
    elif form == "csc":
        stored, *index = compressed(columns, rows, data, shape[1])
        x = make((np.zeros(data.size), *index), shape=shape)
    elif form == "coo":
        stored, x = data, make((np.zeros(data.size), (rows, columns)), shape=shape)
    elif form == "bsr":
        height, width = (2 - size % 2 for size in shape)
        order, *index = compressed(rows // height, columns // width, np.arange(data.size), shape[0] // height)
        stored = np.zeros((data.size, height, width), data.dtype)
        stored[np.arange(data.size), rows[order] % height, columns[order] % width] = data[order]
        x = make((np.zeros(stored.shape), *index), shape=shape)
    elif form == "dia":
        offsets = np.arange(-shape[0], shape[1] + 1)[::-1]
        stored = np.full((offsets.size, shape[1] + 1), 1, data.dtype)  # what lies outside is not part of the array
        for at, offset in enumerate(offsets):
            inside = np.arange(shape[1] + 1) - offset
            stored[at, (inside >= 0) & (inside < shape[0]) & (np.arange(shape[1] + 1) < shape[1])] = 0
        for row, column, value in zip(rows, columns, data, strict=True):
            stored[shape[1] - (column - row), column] = value
        x = make((np.zeros(stored.shape), offsets), shape=shape)
    else:
        known = np.float32 if data.dtype.kind + str(data.dtype.itemsize) == "f2" else data.dtype.newbyteorder("=")
        return make(sparse.coo_array((data.astype(known), (rows, columns)), shape=shape))
    x.data = stored
    return x


def laid_out(array: NDArray[Any], layout: str) -> NDArray[Any]:
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
        wide[::2, ::3] = array
        return wide[::2, ::3]
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    return np.asarray(array, order="F" if layout == "F" else "C")


@st.composite
def dense_arrays(draw: st.DrawFn) -> NDArray[Any]:
    dtype = draw(dtypes())
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2))
    return draw(hnp.arrays(dtype, shape, elements=values(dtype)))
