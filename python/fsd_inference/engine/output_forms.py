"""The array types in which the outputs of a batch are returned: an ndarray or CSR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

OutputForm = Literal["csr", "dense"]
Rows = sparse.csr_array | NDArray[np.float32]

DENSE_ABOVE = 0.1
"""Fraction of non-zero outputs above which an ndarray is returned if no form was requested."""


def is_dense(form: OutputForm | None, shape: tuple[int, int], non_zeros: Callable[[], int]) -> bool:
    """Return whether outputs are returned as an ndarray instead of CSR.

    Parameters
    ----------
    form : {"csr", "dense"}, optional
        The requested form; None leaves the choice to the fraction of non-zero outputs.
    shape : (samples, outputs)
    non_zeros : callable
        Counts the outputs other than 0; called only if the choice depends on them.
    """
    if form is None:
        return non_zeros() > DENSE_ABOVE * shape[0] * shape[1]
    return form == "dense"


def in_form(rows: sparse.csr_array, form: OutputForm | None) -> Rows:
    """Return CSR outputs without stored zeros in the form that `is_dense` chooses."""
    return rows.toarray() if is_dense(form, rows.shape, lambda: rows.nnz) else rows
