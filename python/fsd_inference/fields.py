"""Parsing of JSON, and validation of its objects: each field has the expected type, and there are no unknown fields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fsd_inference.errors import FileFormatError, InputError

T = TypeVar("T")


def read_text(file: Path, kind: str = "JSON") -> str:
    """Read a user's text file; raise FileFormatError if it cannot be read, or is not UTF-8 and so not of its kind."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise FileFormatError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{file}: is not {kind}") from error


def load_json(data: str | bytes | bytearray) -> Any:
    """Parse JSON of values that `Fields` does not read: numbers are finite, whole numbers fit into 64 bits.

    Returns
    -------
    Any
        Value made of dict, list, str, int, float, bool and None.

    Raises
    ------
    ValueError
        The text is not JSON (RFC 8259 has no NaN or Infinity), is nested too deeply, or has a number out of range.
    """
    return _loads(data, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole)


def _loads(data: str | bytes | bytearray, **parsers: Callable[[str], object]) -> Any:
    try:
        return json.loads(data, **parsers)  # type: ignore[arg-type]
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits:.20} is out of range")
    return value


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_WHOLE or not -(1 << 63) <= int(digits) < 1 << 64:
        raise ValueError(f"the number {digits:.20} is out of range")
    return int(digits)


_LONGEST_WHOLE = 20  # digits of 2^64 - 1, and of -2^63 with its sign


def parse_json(text: str | bytes | bytearray, what: str, parse: Callable[[object], T]) -> T:
    """Parse the JSON text of the file named `what`, whose name every error of it gets; `parse` reads it by `Fields`.

    Raises
    ------
    FileFormatError
        The text is not JSON, or `parse` rejects its value with an InputError.
    """
    try:
        value = _loads(text)
    except ValueError as error:
        raise FileFormatError(f"{what}: is not JSON ({error})") from error
    try:
        return parse(value)
    except InputError as error:
        raise FileFormatError(f"{what}: {error}") from error


class Fields:
    """The fields of one JSON object, each removed as it is read.

    Parameters
    ----------
    value : object
        The parsed JSON.
    where : str
        Prefix of field names in messages, for example ``"lanes[0]."``.
    what : str, optional
        Name of the object in messages if `where` is empty.

    Raises
    ------
    FileFormatError
        The value is not a JSON object. All methods raise it too, naming the field and what is wrong with it.
    """

    def __init__(self, value: object, where: str, what: str = "") -> None:
        if not isinstance(value, Mapping):
            raise FileFormatError(f"{where.rstrip('.') or what} must be a JSON object")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def take(self, name: str, kind: type[T]) -> T:
        """Return a required field; a string must not be empty, and a number must be finite and fit into 64 bits."""
        value = self._take(name, kind)
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise FileFormatError(f"'{self._where}{name}' must fit into 64 bits, not {value!r:.60}")
        if isinstance(value, float) and not math.isfinite(value):
            raise FileFormatError(f"'{self._where}{name}' must be a finite number, not {value}")
        return value

    def _take(self, name: str, kind: type[T]) -> T:
        if name not in self._left:
            raise FileFormatError(f"'{self._where}{name}' is missing")
        value = self._left.pop(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or value == "":
            raise FileFormatError(f"'{self._where}{name}' must be {_KINDS[kind]}, not {value!r:.60}")
        return value

    def take_optional(self, name: str, kind: type[T]) -> T | None:
        """Return a required field that may be null."""
        if self._left.get(name, ...) is None:
            del self._left[name]
            return None
        return self.take(name, kind)

    def take_count_optional(self, name: str) -> int | None:
        """Return a required non-negative whole number that may be null."""
        return self.take_optional(name, int) if self._left.get(name, ...) is None else self.take_count(name)

    def take_number_optional(self, name: str) -> float | None:
        """Return a required non-negative number that may be null."""
        return self.take_optional(name, float) if self._left.get(name, ...) is None else self.take_number(name)

    def take_if(self, name: str, kind: type[T]) -> T | None:
        """Return an optional field; None if it is absent or null."""
        return self.take_optional(name, kind) if name in self._left else None

    def take_or(self, name: str, default: T) -> T:
        """Return an optional field of the default's type; the default if it is absent."""
        return self.take(name, type(default)) if name in self._left else default

    def take_count(self, name: str, least: int = 0, most: int = (1 << 63) - 1) -> int:
        """Return a required whole number from `least` to `most`."""
        value = self.take(name, int)
        if value < least:
            raise FileFormatError(f"'{self._where}{name}' must be at least {least}, not {value}")
        if value > most:
            raise FileFormatError(f"'{self._where}{name}' must be at most {most}, not {value}")
        return value

    def take_count_if(self, name: str, least: int = 0, most: int = (1 << 63) - 1) -> int | None:
        """Return an optional whole number from `least` to `most`; None if it is absent or null."""
        return None if self._left.get(name) is None else self.take_count(name, least, most)

    def take_number(self, name: str, unit: str = "seconds") -> float:
        """Return a required number that is finite and not negative; `unit` is its unit in messages."""
        kind = int if isinstance(self._left.get(name), int) else float
        value = self._take(name, kind)
        if not 0 <= value <= _LARGEST:
            raise FileFormatError(f"'{self._where}{name}' must be a number of {unit}, not {value!r:.60}")
        return float(value)

    def take_time(self, name: str) -> float:
        """Return a required time in seconds since the epoch, before the year 10000."""
        value = self.take_number(name)
        if value >= _YEAR_10000:
            raise FileFormatError(f"'{self._where}{name}' must be a time before the year 10000, not {value:g}")
        return value

    def take_time_optional(self, name: str) -> float | None:
        """Return a required time that may be null."""
        return self.take_optional(name, float) if self._left.get(name, ...) is None else self.take_time(name)

    def take_number_or(self, name: str, default: float) -> float:
        """Return an optional number; the default if it is absent."""
        return self.take_number(name) if name in self._left else default

    def take_number_if(self, name: str) -> float | None:
        """Return an optional number; None if it is absent or null."""
        return self.take_number_optional(name) if name in self._left else None

    def take_fields(self, name: str) -> Fields:
        """Return the fields of a required nested object."""
        return Fields(self.take(name, dict), f"{self._where}{name}.")

    def take_each(self, name: str) -> list[Fields]:
        """Return the fields of each object in a required list of objects."""
        return [Fields(each, f"{self._where}{name}[{index}].") for index, each in enumerate(self.take(name, list))]

    def take_each_if(self, name: str) -> list[Fields]:
        """Return the fields of each object in an optional list; an empty list if it is absent."""
        return self.take_each(name) if name in self._left else []

    def take_counts(self, name: str) -> dict[str, int]:
        """Return a required object that maps arbitrary names to non-negative whole numbers."""
        fields = self.take_fields(name)
        return {key: fields.take_count(key) for key in list(fields._left)}

    def take_strings(self, name: str) -> tuple[str, ...]:
        """Return a required list of non-empty strings."""
        values = self.take(name, list)
        if not all(isinstance(value, str) and value for value in values):
            raise FileFormatError(f"'{self._where}{name}' must hold strings only")
        return tuple(values)

    def take_numbers_if(self, name: str) -> tuple[float, ...]:
        """Return an optional list of non-negative numbers; empty if it is absent."""
        values: list[Any] = self.take_or(name, [])
        fields = Fields({str(index): value for index, value in enumerate(values)}, f"{self._where}{name}.")
        return tuple(fields.take_number(str(index)) for index in range(len(values)))

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Set default values for fields that are absent."""
        self._left = {**defaults, **self._left}

    def end(self) -> None:
        """Raise FileFormatError if unread fields remain."""
        if self._left:
            raise FileFormatError(f"'{self._where}{min(self._left)}' is an unknown field")


_LARGEST = 1e18
"""Largest number of seconds, dollars or units in a file; far beyond real ones, so that no sum of them overflows."""

_YEAR_10000 = 253_402_300_800.0
"""The first second of the year 10000, which dates cannot hold."""

_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
