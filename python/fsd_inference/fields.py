"""Validation of parsed JSON objects: each field has the expected type, and there are no unknown fields."""

from __future__ import annotations

import json
import sys
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


def parse_json(text: str, what: str, parse: Callable[[object], T]) -> T:
    """Parse the JSON text of the file named `what`, whose name every error of it gets.

    Raises
    ------
    FileFormatError
        The text is not JSON, or `parse` rejects its value with an InputError.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what}: is not JSON") from error
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
        """Return a required field; a string must not be empty."""
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

    def take_count(self, name: str, least: int = 0) -> int:
        """Return a required whole number of at least `least`."""
        value = self.take(name, int)
        if value < least:
            raise FileFormatError(f"'{self._where}{name}' must be at least {least}, not {value}")
        return value

    def take_count_if(self, name: str, least: int = 0) -> int | None:
        """Return an optional whole number of at least `least`; None if it is absent or null."""
        return None if self._left.get(name) is None else self.take_count(name, least)

    def take_number(self, name: str, unit: str = "seconds") -> float:
        """Return a required number that is finite and not negative; `unit` is its unit in messages."""
        kind = int if isinstance(self._left.get(name), int) else float
        value = self.take(name, kind)
        if not 0 <= value <= sys.float_info.max:
            raise FileFormatError(f"'{self._where}{name}' must be a number of {unit}, not {value!r:.60}")
        return float(value)

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

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Set default values for fields that are absent."""
        self._left = {**defaults, **self._left}

    def end(self) -> None:
        """Raise FileFormatError if unread fields remain."""
        if self._left:
            raise FileFormatError(f"'{self._where}{min(self._left)}' is an unknown field")


_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
