"""Checks of arrays and numbers that several modules of this package share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError

MAX_WIDTH = 2**31 - 1  # SciPy arrays that users pass in or get back have int32 indices


def rounded_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """Return `array` rounded to float32; float32 arrays are returned as they are.

    Raises
    ------
    InputError
        If it does not hold real numbers, or one of them is not finite in float32.
    """
    check_real(array.dtype, what)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = array.astype(np.float32, copy=False)
    if not np.isfinite(rounded).all():
        raise InputError(f"{what} must be finite float32 numbers, but one is NaN, infinite or too large")
    return rounded


def check_real(dtype: np.dtype[Any], what: str) -> None:
    """Raise InputError unless `dtype` is a type of real numbers or booleans."""
    if dtype.kind not in "biuf":
        raise InputError(f"{what} must be real numbers, not values of type {dtype}")


def dense_array(x: Any, what: str) -> NDArray[Any]:
    """Convert an array_like to an array, without a copy if it is an array already.

    Raises
    ------
    InputError
        If it cannot be converted, or has masked values, which NumPy would silently replace by the data under the mask.
    """
    check_unmasked(x, what)
    try:
        array: NDArray[Any] = np.asarray(x)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{what} cannot be read as an array: {' '.join(str(error).split())}") from error
    return array


def check_unmasked(x: Any, what: str) -> None:
    """Raise InputError if any value of `x` is masked, whether `x` is an array or a sequence of rows."""
    if _is_masked(x, 2):
        raise InputError(f"{what} has masked values; fill them first, for example with .filled(0)")


def _is_masked(x: Any, levels: int) -> bool:
    if isinstance(x, np.ma.MaskedArray):
        return bool(np.ma.is_masked(x))
    if levels and isinstance(x, Sequence) and not isinstance(x, str | bytes):
        return any(_is_masked(entry, levels - 1) for entry in x)
    return False


def whole_number(value: object, what: str) -> int:
    """Return `value` as an int.

    Raises
    ------
    InputError
        If it is not of an integer type.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputError(f"{what} must be a whole number, not {shown(value)}")
    return int(value)


def nearest_float32(value: object, what: str) -> float:
    """Return a number rounded to float32, which may be NaN or infinite; -0 becomes +0.

    Raises
    ------
    InputError
        If it is not a real number, or is an integer too large for a float.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} must be a number, not {shown(value)}")
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(float(value))) + 0.0
    except OverflowError as error:
        raise InputError(f"{what} must be a finite float32 number, not {shown(value)}") from error


def shown(value: object) -> str:
    """Return `repr(value)` for an error message, on one line and cut to 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
