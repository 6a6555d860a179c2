"""Conversion of arrays of any format and number type to float32 CSR, with a check of untrusted sparse structures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network.checks import MAX_WIDTH, as_float32, check_real, check_unmasked, not_finite

# Names of the index arrays by sparse format, both as attributes of SciPy arrays and as members of SciPy files.
INDEX_ARRAYS: dict[str, tuple[str, ...]] = {
    "csr": ("indices", "indptr"),
    "csc": ("indices", "indptr"),
    "bsr": ("indices", "indptr"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}
BLOCK_ENTRIES = 1 << 22  # number of entries of a dense array that are converted at a time


@dataclass(frozen=True, slots=True)
class SparseParts:
    """The unchecked component arrays of a 2-D sparse array.

    SciPy can create, save and load arrays of half precision or foreign byte order, but cannot copy, convert or sum
    them. Nor does it check indices before its compiled code uses them.

    Attributes
    ----------
    format : str
        A key of `INDEX_ARRAYS`.
    shape : tuple of int
        Rows and columns, at least one each.
    data : ndarray
        The values.
    index : mapping of str to ndarray
        Index arrays, by the names in `INDEX_ARRAYS`.
    wrong : type of InputError
        Type of the error that is raised if the structure is invalid.
    """

    format: str
    shape: tuple[int, int]
    data: NDArray[Any]
    index: Mapping[str, NDArray[Any]]
    wrong: type[InputError] = InputError

    @classmethod
    def of(cls, x: Any, what: str) -> SparseParts:
        """Return the parts of a 2-D SciPy array or matrix without a copy; only `lil` and `dok` are converted, to `coo`.

        Raises
        ------
        InputError
            If it does not hold real numbers, or has masked values.
        """
        check_real(x.dtype, what)
        if x.format == "lil":  # SciPy's own conversion of lil rounds long doubles to doubles
            values, columns = list(chain.from_iterable(x.data)), list(chain.from_iterable(x.rows))
            check_unmasked(values, what)
            rows = np.repeat(np.arange(x.shape[0]), [len(row) for row in x.rows])
            index = {"row": rows, "col": np.array(columns, np.int64)}
            return cls("coo", x.shape, np.array(values, x.dtype), index)
        if x.format == "dok":
            x = x.tocoo()
        check_unmasked(x.data, what)
        index = {name: np.asarray(getattr(x, name)) for name in INDEX_ARRAYS[x.format]}
        return cls(x.format, x.shape, np.asarray(x.data), index)

    def to_csr(self, what: str) -> sparse.csr_array:
        """Return a float32 CSR copy with sorted columns and duplicates summed; stored zeros are kept.

        Duplicates are summed before rounding; booleans are combined by "or".

        Raises
        ------
        InputError
            If the structure is invalid, or a value is not a finite float32.
        """
        check_real(self.data.dtype, what)
        try:
            data, index = self._checked()
        except ValueError as error:
            raise self.wrong(f"{what} is not a valid sparse array: {error}") from error
        # Without duplicates, rounding first gives the same result in half of the memory.
        has_single = self.format in {"csr", "csc"} and ascends_strictly(index["indptr"], index["indices"])
        values = as_float32(data) if has_single else data.astype(_summing_type(data.dtype))
        if self.format == "coo":
            csr = sparse.coo_array((values, (index["row"], index["col"])), shape=self.shape).tocsr()
        elif self.format == "dia":
            csr = sparse.dia_array((values, index["offsets"]), shape=self.shape).tocsr()
        else:
            form = {"csr": sparse.csr_array, "csc": sparse.csc_array, "bsr": sparse.bsr_array}[self.format]
            csr = form((values, index["indices"], index["indptr"]), shape=self.shape, copy=True).tocsr()
        csr.sum_duplicates()
        csr.data = as_float32(csr.data)
        _check_finite(csr, what)
        return csr

    def _checked(self) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return data and index arrays, trimmed to the structure; raise ValueError if the structure is invalid."""
        for name, array in self.index.items():
            if array.dtype.kind not in "iu" or array.ndim != 1:
                raise ValueError(f"{name} is not a 1-D array of whole numbers")
        if self.data.ndim != {"bsr": 3, "dia": 2}.get(self.format, 1):
            raise ValueError(f"the values of {self.format} cannot be {self.data.ndim}-D")
        for name in self.index.keys() - {"indptr"}:
            if len(self.index[name]) != len(self.data):
                raise ValueError(f"{name} has {len(self.index[name])} entries for {len(self.data)} values")
        if self.format == "coo":
            for name, size in zip(INDEX_ARRAYS["coo"], self.shape, strict=True):
                _check_range(name, self.index[name], size)
            return self.data, dict(self.index)
        return self._checked_diagonals() if self.format == "dia" else self._checked_rows()

    def _checked_diagonals(self) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        offsets, (rows, columns) = self.index["offsets"], self.shape
        if np.unique(offsets).size != offsets.size:
            raise ValueError("a diagonal occurs twice")
        inside = (offsets < columns) & (offsets > -rows)
        return self.data[inside, :columns], {"offsets": offsets[inside]}

    def _checked_rows(self) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Check a structure with indptr: rows of values (csr), rows of blocks (bsr) or columns of values (csc)."""
        rows, columns = self.shape
        height, width = self.data.shape[1:] if self.format == "bsr" else (1, 1)
        if not height or not width or rows % height or columns % width:
            raise ValueError(f"{rows} x {columns} cannot be divided into blocks of {height} x {width}")
        major, minor = rows // height, columns // width
        if self.format == "csc":
            major, minor = minor, major
        indptr = self.index["indptr"]
        if len(indptr) != major + 1:
            raise ValueError(f"indptr has {len(indptr)} entries, not {major + 1}")
        if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any() or indptr[-1] > len(self.data):
            raise ValueError(f"indptr does not ascend from 0 to at most {len(self.data)}")
        count = int(indptr[-1])
        indices = self.index["indices"][:count]
        _check_range("indices", indices, minor)
        return self.data[:count], {"indices": indices, "indptr": indptr}


def csr_from_blocks(blocks: Iterable[NDArray[Any]], columns: int, what: str) -> sparse.csr_array:
    """Stack dense blocks of rows x columns vertically into float32 CSR; values that round to zero are left out.

    Raises
    ------
    InputError
        If a value is not a finite float32.
    """

    def rounded(values: NDArray[Any]) -> NDArray[np.float32]:
        check_real(values.dtype, what)
        return as_float32(values)

    csr = _stacked(blocks, columns, np.dtype(np.float32), rounded)
    _check_finite(csr, what)
    return csr


def csr_from_dense(x: NDArray[Any], what: str) -> sparse.csr_array:
    """Convert a dense 2-D array to float32 CSR block by block, which limits the memory for intermediate arrays."""
    return csr_from_blocks(row_blocks(x), x.shape[1], what)


def csr_of_type(x: NDArray[Any]) -> sparse.csr_array:
    """Convert a dense 2-D array to CSR of the same type block by block."""
    return _stacked(row_blocks(x), x.shape[1], x.dtype, lambda values: values)


def row_blocks(x: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the rows of a dense 2-D array in blocks of limited size."""
    step = max(1, BLOCK_ENTRIES // x.shape[1])
    return (x[start : start + step] for start in range(0, len(x), step))


def _stacked(
    blocks: Iterable[NDArray[Any]], columns: int, dtype: np.dtype[Any], convert: Callable[[NDArray[Any]], NDArray[Any]]
) -> sparse.csr_array:
    """Stack dense blocks into CSR of what `convert` makes of the values that are not zero, where that is not either."""
    counts, places, values = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, dtype)]
    for block in blocks:
        flat = block.reshape(-1)
        place = np.flatnonzero(flat != 0)  # of the numbers themselves, it takes several times as long
        kept = convert(flat[place])
        if not kept.all():
            place, kept = place[kept != 0], kept[kept != 0]
        starts = np.arange(len(block) + 1) * columns
        count = np.diff(np.searchsorted(place, starts))
        counts.append(count)
        places.append((place - np.repeat(starts[:-1], count)).astype(np.int32))
        values.append(kept)
    indptr = np.cumsum(np.concatenate(counts))
    if indptr[-1] <= MAX_WIDTH:  # or else SciPy would copy the columns to int64
        indptr = indptr.astype(np.int32)
    return sparse.csr_array((np.concatenate(values), np.concatenate(places), indptr), shape=(indptr.size - 1, columns))


def ascends_strictly(indptr: NDArray[Any], indices: NDArray[Any]) -> bool:
    """Return whether the indices of each row (or column, for csc) ascend strictly."""
    ascends = indices[1:] > indices[:-1]
    starts = indptr[1:-1]
    ascends[starts[(starts > 0) & (starts < indices.size)] - 1] = True  # steps between rows may descend
    return bool(ascends.all())


def _summing_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a type that holds each value of `dtype` exactly, and sums of small types without overflow."""
    if dtype.kind == "b":
        return dtype
    return np.dtype(np.float64 if dtype.itemsize < 8 else np.longdouble)


def _check_range(name: str, array: NDArray[Any], size: int) -> None:
    if array.size and (int(array.min()) < 0 or int(array.max()) >= size):
        raise ValueError(f"{name} has numbers that are not in 0 to {size - 1}")


def _check_finite(csr: sparse.csr_array, what: str) -> None:
    finite = np.isfinite(csr.data)
    if not finite.all():
        entry = int(np.argmin(finite))
        raise not_finite(what, int(np.searchsorted(csr.indptr, entry, "right")) - 1, int(csr.indices[entry]))
