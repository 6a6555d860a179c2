"""Checks that several readers of this room share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError

MAX_WIDTH = 2**31 - 1  # neurons are numbered with int32 wherever SciPy is the interface


def rounded_float32(array: NDArray[Any], what: str, first_row: int = 0) -> NDArray[np.float32]:
    """Return `array` rounded to float32; float32 arrays are returned as they are.

    Parameters
    ----------
    array : ndarray
        A number, one row, or rows x columns.
    what : str
        What it is, as errors name it.
    first_row : int, optional
        The number of its first row in what it is a part of.

    Raises
    ------
    InputError
        If it does not hold real numbers, or one of them is not finite as a float32.
    """
    check_real(array.dtype, what)
    rounded = as_float32(array)
    finite = np.isfinite(rounded)
    if not finite.all():
        at = [int(number) for number in np.argwhere(~finite)[0]]
        raise not_finite(what, first_row + at[0], at[1]) if len(at) == 2 else not_finite(what, *at)
    return rounded


def as_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return real numbers rounded to float32; those that are too large become infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(np.float32, copy=False)


def not_finite(what: str, *place: int) -> InputError:
    """Return the error of an entry that is NaN, infinite or too large, at a place counted from 0."""
    names = ("row", "column") if len(place) == 2 else ("entry",)
    where = "".join(f", {name} {number}" for name, number in zip(names, place, strict=False))
    return InputError(f"{what}{where}{' (from 0)' if place else ''} is not a finite float32 number")


def check_real(dtype: np.dtype[Any], what: str) -> None:
    """Raise InputError if `dtype` is not one of real numbers or truth values."""
    if dtype.kind not in "biuf":
        raise not_real(what, dtype)


def not_real(what: str, kind: object) -> InputError:
    """Return the error of what holds values of another type than numbers or truth values."""
    return InputError(f"{what} must be real numbers, not values of type {kind}")


def dense_array(x: Any, what: str) -> NDArray[Any]:
    """Return an array_like as an array, not copied where it is one.

    Raises
    ------
    InputError
        If it is none, or has masked values, which NumPy would quietly replace by what lies under the mask.
    """
    check_unmasked(x, what)
    try:
        array: NDArray[Any] = np.asarray(x)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{what} cannot be read as an array: {' '.join(str(error).split())}") from error
    return array


def check_unmasked(x: Any, what: str) -> None:
    """Raise InputError if `x`, one of its rows or a number in a row is masked."""
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
        If it is no real number, or an integer too large for any float.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputError(f"{what} must be a number, not {shown(value)}")
    try:
        with np.errstate(over="ignore"):
            return float(np.float32(float(value))) + 0.0
    except OverflowError as error:
        raise InputError(f"{what} must be a finite float32 number, not {shown(value)}") from error


def shown(value: object) -> str:
    """Return how a message shows a value that makes no sense: on one line, and short."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
