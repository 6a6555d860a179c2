"""Checks of arrays and numbers that several modules of this package share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError

MAX_WIDTH = 2**31 - 1  # SciPy arrays that users pass in or get back have int32 indices


def rounded_float32(array: NDArray[Any], what: str, first_row: int = 0) -> NDArray[np.float32]:
    """Return `array` rounded to float32; float32 arrays are returned as they are.

    Parameters
    ----------
    array : ndarray
        At most 2-D.
    what : str
        Name of the array in error messages.
    first_row : int, optional
        Row number of the first row, if the array is a block of a larger one.

    Raises
    ------
    InputError
        If it does not hold real numbers, or one of them is not finite in float32.
    """
    check_real(array.dtype, what)
    rounded = as_float32(array)
    finite = np.isfinite(rounded)
    if not finite.all():
        at = [int(number) for number in np.argwhere(~finite)[0]]
        raise not_finite(what, first_row + at[0], at[1]) if len(at) == 2 else not_finite(what, *at)
    return rounded


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return real numbers rounded to float32; values that are too large become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32, copy=False)


def not_finite(what: str, *place: int) -> InputError:
    """Return the error for an entry that is NaN, infinite or too large; `place` is its index."""
    names = ("row", "column") if len(place) == 2 else ("entry",)
    where = "".join(f", {name} {number}" for name, number in zip(names, place, strict=False))
    return InputError(f"{what}{where}{' (from 0)' if place else ''} is not a finite float32 number")


def check_real(dtype: np.dtype[Any], what: str) -> None:
    """Raise InputError unless `dtype` is a type of real numbers or booleans."""
    if dtype.kind not in "biuf":
        raise not_real(what, dtype)


def not_real(what: str, kind: object) -> InputError:
    """Return the error for values of a type other than real numbers and booleans."""
    return InputError(f"{what} must be real numbers, not values of type {kind}")


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
