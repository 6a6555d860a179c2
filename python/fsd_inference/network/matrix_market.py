"""Reader of Matrix Market files, plain or gzipped. SciPy's own reader can crash on damaged files, so it is not used."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import as_float32, not_real, shown
from fsd_inference.network.sparse_arrays import SparseParts
from fsd_inference.network.tsv import numbered_lines, open_text, parse_number

MATRIX_MARKET_MAGIC = b"%%MatrixMarket"

_FORMS = "coordinate", "array"
_FIELDS = "real", "double", "integer", "unsigned-integer", "pattern", "complex"
_MIRRORED = {"general": None, "symmetric": 1, "hermitian": 1, "skew-symmetric": -1}


@dataclass(frozen=True, slots=True)
class _Header:
    """The lines before the entries; `mirrored` is the sign of the implied entries above the diagonal, if any."""

    form: str
    field: str
    mirrored: int | None
    rows: int
    columns: int
    entries: int

    @property
    def names(self) -> tuple[str, ...]:
        """The fields of a line of an entry."""
        if self.form == "array":
            return ("value",)
        return ("row", "column") if self.field == "pattern" else ("row", "column", "value")

    @property
    def least_below(self) -> float:
        """How many rows below the diagonal an entry must be, since those above are implied."""
        return -math.inf if self.mirrored is None else (1 - self.mirrored) // 2


def matrix_market_shape(file: Path) -> tuple[int, int]:
    """Read the shape (rows, columns) of a Matrix Market file from its header.

    Raises
    ------
    FileFormatError
        If the header is damaged.
    InputError
        If the numbers are complex.
    """
    with open_text(file) as stream:
        header = _header(file, stream)
    return header.rows, header.columns


def read_matrix_market(file: Path) -> SparseParts | NDArray[np.float64]:
    """Read a Matrix Market file: as COO, or as an array if the file is dense.

    Raises
    ------
    FileFormatError
        If the file is damaged or holds values that are not finite in float32; the message names the line.
    InputError
        If the numbers are complex.
    """
    with open_text(file) as stream:
        header = _header(file, stream)
        first = next((line for line in stream if not _is_passed_over(line)), None)
        numbers = np.empty((0, len(header.names)))
        if first is not None:  # loadtxt would warn of a file without entries
            try:
                numbers = np.loadtxt(chain([first], stream), np.float64, "%", ndmin=2)
            except ValueError:
                raise _first_wrong_entry(file, header) from None
    if numbers.shape[1] != len(header.names) or not _are_right(numbers, header):
        raise _first_wrong_entry(file, header)
    if len(numbers) != header.entries:
        raise FileFormatError(f"{file} has {len(numbers)} entries, but its header says {header.entries}")
    return _from_columns(numbers[:, 0], header) if header.form == "array" else _from_places(numbers, header)


def _header(file: Path, stream: TextIO) -> _Header:
    """Read the banner and the line of sizes; `stream` is then at the entries."""
    banner = stream.readline()
    words = banner.lower().split()
    is_known = len(words) == 5 and words[:2] == ["%%matrixmarket", "matrix"]
    if not (is_known and words[2] in _FORMS and words[3] in _FIELDS and words[4] in _MIRRORED):
        usual = "%%MatrixMarket matrix coordinate real general"
        raise FileFormatError(f"{file}, line 1: {shown(banner.strip())} is not a header such as {usual!r}")
    form, field, mirrored = words[2], words[3], _MIRRORED[words[4]]
    if field == "complex":
        raise not_real(str(file), field)
    if (form, field) == ("array", "pattern"):
        raise FileFormatError(f"{file}, line 1: an array cannot be a pattern")
    number, line = next(((number, line) for number, line in enumerate(stream, 2) if not _is_passed_over(line)), (2, ""))
    sizes = line.split()
    if len(sizes) != (2 if form == "array" else 3) or not all(size.isascii() and size.isdigit() for size in sizes):
        wanted = "rows and columns" if form == "array" else "rows, columns and entries"
        raise FileFormatError(f"{file}, line {number}: {shown(line.strip())} is not the number of {wanted}")
    rows, columns = int(sizes[0][:20]), int(sizes[1][:20])
    if mirrored is not None and rows != columns:
        raise FileFormatError(f"{file}, line {number}: a {words[4]} matrix cannot be {rows} x {columns}")
    if form == "coordinate":
        entries = int(sizes[2][:20])
    elif mirrored is None:
        entries = rows * columns
    else:
        entries = rows * (rows + mirrored) // 2
    return _Header(form, field, mirrored, rows, columns, entries)


def _is_passed_over(line: str) -> bool:
    return line.isspace() or line.lstrip().startswith("%")


def _are_right(numbers: NDArray[np.float64], header: _Header) -> bool:
    if header.names[-1] == "value" and not np.isfinite(as_float32(numbers[:, -1])).all():
        return False
    if header.form == "array":
        return True
    row, column = numbers[:, 0], numbers[:, 1]
    is_counted = (row >= 1) & (row <= header.rows) & (column >= 1) & (column <= header.columns)
    is_whole = (np.trunc(row) == row) & (np.trunc(column) == column)
    return bool((is_counted & is_whole).all() and (row - column >= header.least_below).all())


def _from_places(numbers: NDArray[np.float64], header: _Header) -> SparseParts:
    row, column = (numbers[:, :2].T - 1).astype(np.int64)
    values = np.ones(len(numbers)) if header.field == "pattern" else numbers[:, 2]
    if header.mirrored is not None:
        below = row > column
        values = np.concatenate([values, header.mirrored * values[below]])
        row, column = np.concatenate([row, column[below]]), np.concatenate([column, row[below]])
    return SparseParts("coo", (header.rows, header.columns), values, {"row": row, "col": column}, FileFormatError)


def _from_columns(values: NDArray[np.float64], header: _Header) -> NDArray[np.float64]:
    """Return the matrix of `array` values, which are stored column by column."""
    if header.mirrored is None:
        return values.reshape(header.columns, header.rows).T
    dense = np.zeros((header.rows, header.columns))
    column, row = np.triu_indices(header.rows, 0 if header.mirrored > 0 else 1)
    dense[column, row] = header.mirrored * values
    dense[row, column] = values
    return dense


def _entries(file: Path) -> Iterator[tuple[str, str]]:
    """Yield location and text of the line of each entry."""
    lines = ((where, line) for where, line in numbered_lines(file) if not line.startswith("%"))
    return islice(lines, 1, None)  # the first line holds the sizes


def _first_wrong_entry(file: Path, header: _Header) -> FileFormatError:
    for where, line in _entries(file):
        fields = line.partition("%")[0].split()
        numbers = [parsed for field in fields if (parsed := parse_number(field)) is not None]
        if not len(fields) == len(numbers) == len(header.names):
            return FileFormatError(f"{where}: {shown(line)} is not {', '.join(header.names)}")
        places = zip(header.names, numbers, (header.rows, header.columns), strict=False)
        for name, number, most in places if header.form == "coordinate" else ():
            if not (number.is_integer() and 1 <= number <= most):
                return FileFormatError(f"{where}: {name} {number:.17g} is not a whole number in 1 to {most}")
        if header.form == "coordinate" and numbers[0] - numbers[1] < header.least_below:
            return FileFormatError(f"{where}: the symmetry in the header implies this entry; remove it")
        if header.names[-1] == "value" and not np.isfinite(as_float32(np.array(numbers[-1]))):
            return FileFormatError(f"{where}: value {fields[-1]} is not a finite float32 number")
    return FileFormatError(f"{file} is not a Matrix Market file")
