"""Labels: what each output of a network stands for."""

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
        All texts, all numbers or all truth values, so that they survive in a JSON file.
    outputs : int
        How many there must be.

    Raises
    ------
    InputError
        If there are more or fewer, or they are of another type or of several.
    """
    what = "the labels of a network"
    given = np.array(labels, dtype=object)  # of mixed types, NumPy would make texts
    if given.shape != (outputs,):
        raise InputError(f"{what} must be 1-D, one for each of its {outputs} outputs, not of shape {given.shape}")
    listed = [label.item() if isinstance(label, np.generic) else label for label in given]
    kinds = {type(label) for label in listed}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        array = np.array(listed)
        if array.dtype.kind in "biuU" or (array.dtype.kind == "f" and np.isfinite(array).all()):
            array.setflags(write=False)
            return array
    raise InputError(f"{what} must all be texts, finite numbers or truth values, not {shown(listed)}")
