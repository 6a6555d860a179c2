"""Checks that several readers of this room share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError


def rounded_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Return `array` rounded to float32; float32 arrays are returned as they are.

    Raises
    ------
    InputError
        If it does not hold real numbers, or one of them is not finite as a float32.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} must be real numbers, not values of type {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(np.float32, copy=False)
    if not np.isfinite(rounded).all():
        raise InputError(f"{what} must be finite float32 numbers, but one is NaN, infinite or too large")
    return rounded
