"""Reader of Matrix Market files, plain or gzipped. SciPy's own reader can crash on damaged files, so it is not used."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import shown
from fsd_inference.network.sparse_arrays import SparseParts
from fsd_inference.network.tsv import open_text, parse_number

_BANNER = "%%MatrixMarket matrix coordinate real general"
_FORMS = ("coordinate", "array")
_FIELDS = ("real", "double", "integer", "unsigned-integer", "pattern")
_SIGNS = {"general": 0, "symmetric": 1, "skew-symmetric": -1}
_DIGITS = 18  # of a size at most


@dataclass(frozen=True, slots=True)
class _Header:
    """The lines before the entries; `sign` is that of the implied entries above the diagonal, or 0 without any."""

    form: str
    field: str
    sign: int
    rows: int
    columns: int
    entries: int

    @property
    def names(self) -> tuple[str, ...]:
        """What each line of an entry consists of."""
        place = ("row", "column") if self.form == "coordinate" else ()
        return place if self.field == "pattern" else (*place, "value")


def matrix_market_shape(path: Path) -> tuple[int, int]:
    """Read the shape (rows, columns) of a Matrix Market file from its header.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged or of another kind, or holds complex numbers.
    """
    with open_text(path) as stream:
        header = _read_header(path, stream)
    return header.rows, header.columns


def read_matrix_market(path: Path) -> SparseParts | NDArray[np.float64]:
    """Read a Matrix Market file: as COO, or as an array if the file is dense.

    Raises
    ------
    FileFormatError
        If the file is missing or damaged; the message names the line.
    """
    with open_text(path) as stream:
        header = _read_header(path, stream)
        numbers = _load(stream, len(header.names))
    if numbers is None or not _are_inside(numbers, header):
        raise _first_wrong_line(path, header)
    if len(numbers) != header.entries:
        raise FileFormatError(f"{path} has {len(numbers)} entries, but declares {header.entries}")
    return _dense(numbers[:, 0], header) if header.form == "array" else _sparse(numbers, header)


def _read_header(path: Path, stream: TextIO) -> _Header:
    """Read the banner and the line of sizes; `stream` is then at the entries."""
    banner = stream.readline()
    words = banner.lower().split()
    if len(words) == 5 and words[3] == "complex":
        raise FileFormatError(f"{path} holds complex numbers, but weights must be real")
    is_known = len(words) == 5 and words[:2] == ["%%matrixmarket", "matrix"]
    if not (is_known and words[2] in _FORMS and words[3] in _FIELDS and words[4] in _SIGNS):
        raise FileFormatError(f"{path}, line 1: {shown(banner.strip())} is not a banner such as {_BANNER!r}")
    form, field, sign = words[2], words[3], _SIGNS[words[4]]
    if (form, field) == ("array", "pattern"):
        raise FileFormatError(f"{path}, line 1: a dense matrix cannot be a pattern")
    number, line = next(((k, line) for k, line in enumerate(stream, 2) if not _is_comment(line)), (2, ""))
    where = f"{path}, line {number}"
    sizes = line.split()
    is_counted = all(size.isascii() and size.isdigit() and len(size) <= _DIGITS for size in sizes)
    if len(sizes) != (3 if form == "coordinate" else 2) or not is_counted:
        wanted = "rows, columns and entries" if form == "coordinate" else "rows and columns"
        raise FileFormatError(f"{where}: {shown(line.strip())} is not the number of {wanted}")
    rows, columns, *rest = map(int, sizes)
    if sign and rows != columns:
        raise FileFormatError(f"{where}: a {words[4]} matrix cannot be {rows} x {columns}")
    stored = rows * (rows + sign) // 2 if sign else rows * columns
    return _Header(form, field, sign, rows, columns, rest[0] if rest else stored)


def _is_comment(line: str) -> bool:
    return line.isspace() or line.lstrip().startswith("%")


def _load(stream: TextIO, width: int) -> NDArray[np.float64] | None:
    """Read lines of `width` numbers; None if one is something else."""
    first = next((line for line in stream if not _is_comment(line)), None)
    if first is None:  # for which loadtxt would warn
        return np.empty((0, width))
    try:
        numbers = np.loadtxt(chain([first], stream), np.float64, comments="%", ndmin=2)
    except ValueError:
        return None
    return numbers if numbers.shape[1] == width else None


def _are_inside(numbers: NDArray[np.float64], header: _Header) -> bool:
    """Return whether all entries have a position in the matrix, and in the part of it that is stored."""
    if header.form == "array":
        return True
    rows, columns = numbers[:, 0], numbers[:, 1]
    places = ((rows, header.rows), (columns, header.columns))
    is_inside = all(((index >= 1) & (index <= size) & (index % 1 == 0)).all() for index, size in places)
    return is_inside and not (header.sign and (rows - columns < _lowest_diagonal(header)).any())


def _lowest_diagonal(header: _Header) -> int:
    """Return how far below the diagonal the entries of a symmetric matrix start: those of a skew one are off it."""
    return 0 if header.sign > 0 else 1


def _sparse(numbers: NDArray[np.float64], header: _Header) -> SparseParts:
    row, col = (numbers[:, :2].T - 1).astype(np.int64)
    values = np.ones(len(numbers)) if header.field == "pattern" else numbers[:, 2]
    if header.sign:
        below = row > col
        values = np.concatenate([values, header.sign * values[below]])
        row, col = np.concatenate([row, col[below]]), np.concatenate([col, row[below]])
    return SparseParts("coo", (header.rows, header.columns), values, {"row": row, "col": col}, FileFormatError)


def _dense(values: NDArray[np.float64], header: _Header) -> NDArray[np.float64]:
    """Return the matrix whose values are stored column by column."""
    if not header.sign:
        return values.reshape(header.columns, header.rows).T
    matrix = np.zeros((header.rows, header.columns))
    column, row = np.triu_indices(header.rows, _lowest_diagonal(header))
    matrix[column, row] = header.sign * values
    matrix[row, column] = values
    return matrix


def _first_wrong_line(path: Path, header: _Header) -> FileFormatError:
    with open_text(path) as stream:
        numbered = ((k, line) for k, line in enumerate(stream, 1) if not _is_comment(line))
        next(numbered)  # sizes
        for k, line in numbered:
            where, fields = f"{path}, line {k}", line.partition("%")[0].split()
            numbers = [number for field in fields if (number := parse_number(field)) is not None]
            if not len(fields) == len(numbers) == len(header.names):
                return FileFormatError(f"{where}: {shown(line.strip())} is not {', '.join(header.names)}")
            if not _are_inside(np.array([numbers]), header):
                half = " below the diagonal" if header.sign else ""
                return FileFormatError(
                    f"{where}: {shown(line.strip())} is not at a position in a matrix of {header.rows} x "
                    f"{header.columns}{half}"
                )
    return FileFormatError(f"{path} is not a Matrix Market file")
