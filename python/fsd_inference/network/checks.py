"""Checks that several readers of this room share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError


def exact_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Return `array` as float32 if no value changes by that; float32 arrays are returned as they are.

    Raises
    ------
    InputError
        If it does not hold real numbers, a number is not finite, or a number is not exactly a float32.
    """
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} must be real numbers, not values of type {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{what} must be finite, but one is NaN or infinite")
    if converted is not array and not (np.isfinite(converted).all() and (converted.astype(array.dtype) == array).all()):
        raise InputError(f"{what} of type {array.dtype} cannot all be written as float32; round them to float32 first")
    return converted
