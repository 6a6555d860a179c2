"""The Graph Challenge's answer file: the numbers of the samples with any output above zero."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsd_inference.atomic import write_text
from fsd_inference.errors import FileFormatError


def write_categories(path: str | os.PathLike[str], alive: ArrayLike) -> None:
    """Write which samples are alive: one number a line, ascending, counted from 1; the file appears complete.

    Parameters
    ----------
    path : path-like
        The file to make or replace.
    alive : array_like of bool, shape (samples,)
        Whether the sample has any output above zero.

    Raises
    ------
    InputError, OutputError
        If the place cannot be written.
    """
    numbers = np.flatnonzero(np.asarray(alive, bool)) + 1
    write_text(path, "".join(f"{number}\n" for number in numbers.tolist()))


def read_categories(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Return the numbers of the samples that are alive, counted from 1, ascending.

    Raises
    ------
    FileFormatError
        If the file is missing or a line is not a number larger than the one before.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise FileFormatError(f"{file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{file} is not a text file of sample numbers") from error
    before = 0
    for row, line in enumerate(lines, 1):
        number = int(line) if line.isdecimal() and len(line) < 19 else 0
        if number <= before:
            raise FileFormatError(f"{file}, line {row}: {line[:20]!r} is not a sample number above {before}")
        before = number
    return np.array([int(line) for line in lines], np.int64)
