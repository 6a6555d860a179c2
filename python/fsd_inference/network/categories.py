"""The category file of the Graph Challenge: the numbers of the samples with any output above zero."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsd_inference.atomic import write_text
from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.checks import MAX_WIDTH, dense_array, shown
from fsd_inference.network.tsv import read_numbers


def write_categories(path: str | os.PathLike[str], alive: ArrayLike) -> None:
    """Write the numbers of the alive samples, one per line, ascending, counted from 1; the write is atomic.

    Parameters
    ----------
    path : path-like
        The file to create or replace.
    alive : array_like of bool, shape (samples,)
        Whether each sample has any output above zero.

    Raises
    ------
    InputError
        If nothing can be written at `path`, or `alive` is not 1-D or has masked values.
    OutputError
        If writing fails, for example because the disk is full.
    """
    states = dense_array(alive, "the mask of alive samples")
    if states.ndim != 1:
        raise InputError(f"the mask of alive samples must be 1-D, one entry per sample, not {states.ndim}-D")
    numbers = np.flatnonzero(states) + 1
    write_text(path, "".join(f"{number}\n" for number in numbers.tolist()))


def read_categories(path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Read the numbers of the alive samples, counted from 1, ascending.

    Raises
    ------
    FileFormatError
        If the file is missing or damaged, or a line is not a number larger than the one before.
    """
    numbers: list[int] = []
    before = 0
    for where, line, number in read_numbers(Path(path)):
        if number is None or not number.is_integer() or not before < number <= MAX_WIDTH:
            raise FileFormatError(f"{where}: {shown(line)} is not a sample number above {before}")
        before = int(number)
        numbers.append(before)
    return np.array(numbers, np.int64)
