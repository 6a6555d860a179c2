"""Inputs in a Matrix Market file: its rows are samples."""

from __future__ import annotations

from pathlib import Path

from scipy import sparse

from fsd_inference.network.inputs import as_inputs, check_shape, inputs_from_parts
from fsd_inference.network.matrix_market import matrix_market_shape, read_matrix_market
from fsd_inference.network.sparse_arrays import SparseParts


def read_matrix_market_inputs(file: Path, features: int | None) -> sparse.csr_array:
    """Return the inputs in a Matrix Market file, plain or gzipped.

    Raises
    ------
    FileFormatError
        If the file is damaged; the message names the line.
    InputError
        If its numbers are complex, or it does not have `features` columns.
    """
    check_shape(matrix_market_shape(file), features, str(file))  # before memory is allocated
    read = read_matrix_market(file)
    if isinstance(read, SparseParts):
        return inputs_from_parts(read, features, str(file))
    return as_inputs(read, features, what=str(file))
