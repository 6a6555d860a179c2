"""Readers of Graph Challenge text files, plain or gzip: lines of two 1-based numbers and a value, or of one number.

Columns are separated by tabs or spaces, lines by any usual line ending; blank lines and a byte-order mark are ignored.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import shown

GZIP_MAGIC = b"\x1f\x8b"

# Numbers such as 12.0 or 1e2 need float64, which NumPy parses half as fast. Before 2.4, int32 truncated 1.5 to 1.
_NUMBERS = [np.int32, np.float64] if np.lib.NumpyVersion(np.__version__) >= "2.4.0" else [np.float64]


class Entries:
    """The entries of a sparse matrix, read from a text file.

    Parameters
    ----------
    path : Path
        The file.
    names : tuple of str
        Names of the columns for error messages: two 1-based numbers and a value.
    limits : tuple of int
        Largest valid number in each of the first two columns.

    Attributes
    ----------
    first, second : ndarray of int32
        The first two columns, counted from 0, in the order of the file.
    values : ndarray of float32
        The third column.

    Raises
    ------
    FileFormatError
        If the file is missing, empty or damaged, or a line is invalid; the message names the line.
    """

    def __init__(self, path: Path, names: tuple[str, str, str], limits: tuple[int, int]) -> None:
        self._path, self._names, self._limits = path, names, limits
        lines = self._read()
        if lines is None:
            raise self._first_wrong_line()
        self.first: NDArray[np.int32] = lines["first"].astype(np.int32) - 1
        self.second: NDArray[np.int32] = lines["second"].astype(np.int32) - 1
        self.values: NDArray[np.float32] = np.ascontiguousarray(lines["value"])

    def to_csr(self, shape: tuple[int, int], *, transposed: bool = False) -> sparse.csr_array:
        """Return the matrix as CSR, with `first` as rows and `second` as columns, or the reverse if `transposed`.

        Raises
        ------
        FileFormatError
            If two lines have the same row and column.
        """
        places = (self.second, self.first) if transposed else (self.first, self.second)
        csr = sparse.coo_array((self.values, places), shape=shape).tocsr()
        if csr.nnz != self.values.size:
            raise self._repeated()
        return csr

    def _read(self) -> NDArray[np.void] | None:
        """Return the lines of the file; None if one of them is invalid."""
        path = self._path
        with open_text(path) as stream:
            if all(line.isspace() for line in stream):  # loadtxt would only warn
                raise FileFormatError(f"{path} is empty")
        for number in _NUMBERS:
            dtype = np.dtype([("first", number), ("second", number), ("value", np.float32)])
            try:
                with open_text(path) as stream:
                    # NumPy is faster on files that it opens itself, but tells compressed ones by their name.
                    source = stream if path.suffix == ".gz" or _is_gzip(path) else str(path.absolute())
                    lines = np.loadtxt(source, dtype, comments=None, ndmin=1, encoding="utf-8-sig")
            except ValueError:
                continue
            counted = zip(("first", "second"), self._limits, strict=True)
            is_right = all(_are_in_range(lines[name], limit) for name, limit in counted)
            return lines if is_right and np.isfinite(lines["value"]).all() else None
        return None

    def _first_wrong_line(self) -> FileFormatError:
        for where, line in numbered_lines(self._path):
            fields = line.split()
            numbers = [parsed for field in fields if (parsed := parse_number(field)) is not None]
            if len(fields) != 3 or len(numbers) != 3:
                return FileFormatError(
                    f"{where}: {shown(line)} is not {', '.join(self._names[:2])} and {self._names[2]}"
                )
            for name, number, limit in zip(self._names, numbers, self._limits, strict=False):
                if not (number.is_integer() and 1 <= number <= limit):
                    return FileFormatError(f"{where}: {name} {number:.17g} is not a whole number in 1 to {limit}")
            with np.errstate(over="ignore"):
                if not np.isfinite(np.float32(numbers[2])):
                    return FileFormatError(f"{where}: {self._names[2]} {fields[2]} is not a finite float32 number")
        return FileFormatError(f"{self._path} is not a text file of {', '.join(self._names)}")

    def _repeated(self) -> FileFormatError:
        order = np.lexsort((self.second, self.first))  # stable, so equal entries stay in the order of the file
        first, second = self.first[order], self.second[order]
        again = int(order[1:][(first[1:] == first[:-1]) & (second[1:] == second[:-1])].min())
        where = next(where for k, (where, _) in enumerate(numbered_lines(self._path)) if k == again)
        one, two, _ = self._names
        return FileFormatError(
            f"{where}: {one} {self.first[again] + 1} and {two} {self.second[again] + 1} occur for the second time"
        )


def read_numbers(path: Path) -> Iterator[tuple[str, str, float | None]]:
    """Yield (location, text, number) of each line that is not blank; the number is None if the text is not a number.

    Raises
    ------
    FileFormatError
        If the file is missing or damaged.
    """
    for where, line in numbered_lines(path):
        yield where, line, parse_number(line)


def parse_number(text: str) -> float | None:
    """Parse a number, including NaN and infinity; return None if `text` is not a number."""
    if not text.isascii() or "_" in text:
        return None
    try:
        return float(text)
    except ValueError:
        return None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, plain or gzip by content rather than name; a byte-order mark is skipped.

    Raises
    ------
    FileFormatError
        If the file cannot be read, or reading it in the block shows that it is damaged.
    """
    try:
        with path.open("rb") as raw:
            unpacked = gzip.GzipFile(fileobj=raw) if _is_gzip(path) else raw
            with io.TextIOWrapper(unpacked, encoding="utf-8-sig", errors="backslashreplace") as stream:
                yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileFormatError(f"{path} is truncated or damaged: {error}") from error
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (location, text) of each line that is not blank, with surrounding white space stripped."""
    with open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.isspace():
                yield f"{path}, line {number}", line.strip()


def _are_in_range(numbers: NDArray[np.int32] | NDArray[np.float64], limit: int) -> bool:
    """Return whether all numbers are whole and in 1 to `limit`."""
    is_whole = numbers.dtype.kind == "i" or bool((numbers == np.floor(numbers)).all())
    return is_whole and bool((numbers >= 1).all() and (numbers <= limit).all())
