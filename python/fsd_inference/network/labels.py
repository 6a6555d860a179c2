"""Validation of labels, which say what each output of a network stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fsd_inference.errors import InputError
from fsd_inference.network.checks import shown


def checked_labels(labels: ArrayLike, outputs: int) -> NDArray[Any]:
    """Return labels as a read-only array.

    Parameters
    ----------
    labels : array_like, shape (outputs,)
        Strings, finite numbers or booleans, all of one type, so that JSON can store them.
    outputs : int
        Number of outputs.

    Raises
    ------
    InputError
        If the number of labels is wrong, or they are of another type.
    """
    what = "the labels of a network"
    given = np.array(labels, dtype=object)  # NumPy would convert mixed types to strings
    if given.shape != (outputs,):
        raise InputError(f"{what} must be 1-D, one for each of its {outputs} outputs, not of shape {given.shape}")
    listed = [label.item() if isinstance(label, np.generic) else label for label in given]
    kinds = {type(label) for label in listed}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        array = np.array(listed)
        if array.dtype.kind in "biuU" or (array.dtype.kind == "f" and np.isfinite(array).all()):
            array.setflags(write=False)
            return array
    raise InputError(f"{what} must all be strings, finite numbers or booleans, not {shown(listed)}")
