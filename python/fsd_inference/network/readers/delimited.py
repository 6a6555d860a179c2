"""Dense inputs in CSV and TSV files: one line of numbers per sample, below an optional line of column names."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import FileFormatError
from fsd_inference.network.checks import as_float32, shown
from fsd_inference.network.inputs import check_shape, inputs_from_blocks
from fsd_inference.network.readers.graph_challenge import read_graph_challenge
from fsd_inference.network.readers.parts import Part
from fsd_inference.network.tsv import numbered_lines, parse_number

_BLOCK_ENTRIES = 1 << 20  # parsed at once; as text they take several times as much memory
_TRIPLET = 3

Line = tuple[str, str]
"""Location and text of a line."""


def read_csv(file: Path, features: int | None) -> sparse.csr_array:
    """Read the inputs in a .csv file, plain or gzip.

    Raises
    ------
    FileFormatError
        If a field is not a number, or lines differ in length; the message names line and column, counted from 1.
    InputError
        If the number of columns is not `features`.
    """
    return _read(file, features, ",")


def tsv_parts(files: Sequence[Path], features: int | None) -> Iterator[Part]:
    """Yield the inputs in .tsv files, plain or gzip: dense, or in the Graph Challenge's format if they have 3 columns.

    Raises
    ------
    FileFormatError
        As `read_csv`; or if one of several files is in the Graph Challenge's format, which does not store how many
        samples a file has.
    InputError
        If the number of columns is not `features`.
    """
    dense = [_is_dense(file, features) for file in files]
    if len(files) == 1 and not dense[0]:
        yield files[0], read_graph_challenge(files[0], features)
        return
    if not all(dense):
        raise FileFormatError(f"{files[dense.index(False)]} is not dense; a directory may hold only dense .tsv files")
    for file in files:
        yield file, _read(file, features, "\t")


def _is_dense(file: Path, features: int | None) -> bool:
    where, line = _first_line(file)
    columns = len(_fields(where, line, "\t"))
    if _TRIPLET in (columns, len(line.split())):
        return False
    if features is not None and columns > _TRIPLET and columns != features:
        raise FileFormatError(f"{where}: {columns} columns; expected sample, feature and value, or {features} features")
    return columns > _TRIPLET or columns == features


def _read(file: Path, features: int | None, separator: str) -> sparse.csr_array:
    where, line = _first_line(file)
    names = _fields(where, line, separator)
    check_shape((1, len(names)), features, str(file))
    lines = numbered_lines(file)
    if all(parse_number(name) is None for name in names):
        if not names[0]:
            raise FileFormatError(f"{where}: column 1 has no name, so it is an index; save the file without the index")
        next(lines)
    return inputs_from_blocks(_blocks(lines, len(names), separator), len(names), features, str(file))


def _first_line(file: Path) -> Line:
    for line in numbered_lines(file):
        return line
    raise FileFormatError(f"{file} is empty")


def _blocks(lines: Iterator[Line], width: int, separator: str) -> Iterator[NDArray[np.float32]]:
    while batch := list(islice(lines, max(1, _BLOCK_ENTRIES // width))):
        texts = [line for _, line in batch]
        try:
            block = as_float32(np.loadtxt(texts, np.float64, None, separator, ndmin=2, quotechar='"'))
        except ValueError:
            block = np.empty((0, 0), np.float32)
        if block.shape != (len(batch), width) or not np.isfinite(block).all():
            raise _first_wrong_line(batch, width, separator)
        yield block


def _first_wrong_line(lines: list[Line], width: int, separator: str) -> FileFormatError:
    for where, line in lines:
        fields = _fields(where, line, separator)
        if len(fields) != width:
            return FileFormatError(f"{where}: {len(fields)} columns, but lines before it have {width}")
        for column, field in enumerate(fields, 1):
            number = parse_number(field)
            if number is None:
                return FileFormatError(f"{where}, column {column}: {shown(field)} is not a number")
            if not np.isfinite(as_float32(np.array(number))):
                return FileFormatError(f"{where}, column {column}: {field} is not a finite float32 number")
    return FileFormatError(f"{lines[0][0]}: a line from here on does not hold numbers")


def _fields(where: str, line: str, separator: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator))]
    except csv.Error as error:
        raise FileFormatError(f"{where}: {error}") from error
