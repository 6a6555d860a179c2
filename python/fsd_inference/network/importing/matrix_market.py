"""Matrix Market files, plain or gzip, read by SciPy; what a header claims is compared with the file's size first."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy.io import mminfo, mmread

from fsd_inference.errors import FileFormatError

_DEFLATE_AT_MOST = 1032  # times smaller than the text


def matrix_market_shape(path: Path) -> tuple[int, int]:
    """Return rows and columns of a Matrix Market file, having read its header alone.

    Raises
    ------
    FileFormatError
        If the file is missing, damaged or of another kind, holds complex numbers, or claims more entries than it can
        have.
    """
    with _reading(path):
        rows, columns, entries, form, field, symmetry = mminfo(str(path))
        size = path.stat().st_size * (_DEFLATE_AT_MOST if path.suffix == ".gz" else 1)
    if field == "complex":
        raise FileFormatError(f"{path} holds complex numbers; save real ones")
    stored = entries if form == "coordinate" or symmetry == "general" else entries // 2
    if stored * (4 if form == "coordinate" else 2) > size + 4:  # "1 1\n" or "1\n" at least; the last line may not end
        raise FileFormatError(f"{path} claims {entries} entries, which it is too small for; it is truncated or damaged")
    return int(rows), int(columns)


def read_matrix_market(path: Path) -> Any:
    """Return the matrix of a Matrix Market file: SciPy's COO, or an array where the file is dense.

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
