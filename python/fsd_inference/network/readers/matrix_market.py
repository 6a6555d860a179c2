"""Inputs in a Matrix Market file, which SciPy parses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy import io, sparse

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.network.inputs import as_inputs, check_shape
from fsd_inference.network.numpy_files import DEFLATE_AT_MOST
from fsd_inference.network.tsv import is_gzip, open_unpacked

_LEAST_BYTES = {"coordinate": 4, "array": 2}  # of an entry: "1 1\n", and "1\n"


def read_matrix_market(file: Path, features: int | None) -> sparse.csr_array:
    """Return the inputs in a Matrix Market file, plain or gzip: rows are samples.

    Raises
    ------
    FileFormatError
        If it is damaged; the message has the line.
    InputError
        If its numbers are complex, not finite as float32, or not `features` a row.
    """
    what = str(file)
    try:
        with open_unpacked(file) as stream:
            rows, columns, entries, form, field, symmetry = io.mminfo(stream)
        check_shape((rows, columns), features, what)
        if field == "complex":
            raise InputError(f"{what} must be real numbers, not values of type complex")
        stored = entries if form == "coordinate" or symmetry == "general" else rows * (rows - 1) // 2
        most_bytes = file.stat().st_size * (DEFLATE_AT_MOST if is_gzip(file) else 1)
        if stored * _LEAST_BYTES[form] > most_bytes + 1:  # the last line may have no end
            raise FileFormatError(f"{what} claims {entries} entries, which is more than its size can hold")
        with open_unpacked(file) as stream:
            matrix: Any = io.mmread(stream)
    except (ValueError, OverflowError) as error:
        raise FileFormatError(f"{what}: {' '.join(str(error).split())}") from error
    return as_inputs(matrix, features, what=what)
