"""Reader of Matrix Market files, plain or gzipped, which checks the header against the file size before SciPy reads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy.io import mminfo, mmread

from fsd_inference.errors import FileFormatError

_MAX_DEFLATE_RATIO = 1032


def matrix_market_shape(path: Path) -> tuple[int, int]:
    """Read the shape (rows, columns) of a Matrix Market file from its header.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged or of another kind, holds complex numbers, or declares more entries than fit in
        its size.
    """
    with _reading(path):
        rows, columns, entries, form, field, symmetry = mminfo(str(path))
        size = path.stat().st_size * (_MAX_DEFLATE_RATIO if path.suffix == ".gz" else 1)
    if field == "complex":
        raise FileFormatError(f"{path} holds complex numbers, but weights must be real")
    stored = entries if form == "coordinate" or symmetry == "general" else entries // 2
    if stored * (4 if form == "coordinate" else 2) > size + 4:  # "1 1\n" or "1\n" at least; the last line may not end
        raise FileFormatError(f"{path} declares {entries} entries, but is too small for them; it is truncated")
    return int(rows), int(columns)


def read_matrix_market(path: Path) -> Any:
    """Read a Matrix Market file as a SciPy COO matrix, or as an array if the file is dense.

    Raises
    ------
    FileFormatError
        If the file is damaged; the message names the line.
    """
    matrix_market_shape(path)
    with _reading(path):
        return mmread(str(path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, OverflowError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path} is not a valid Matrix Market file: {error}") from error
