"""JSON objects from elsewhere, taken field by field: each of the type asked for, and none left over."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeVar

from fsd_inference.errors import FileFormatError

T = TypeVar("T")


class Fields:
    """The fields of one JSON object.

    Parameters
    ----------
    value : object
        The parsed JSON.
    where : str
        What the names of its fields begin with in messages, for example ``"lanes[0]."``.
    what : str, optional
        What the object is called where `where` is empty.

    Raises
    ------
    FileFormatError
        From here and from all methods: names the field and what is wrong with it.
    """

    def __init__(self, value: object, where: str, what: str = "") -> None:
        if not isinstance(value, Mapping):
            raise FileFormatError(f"{where.rstrip('.') or what} must be a JSON object")
        self._left: dict[str, Any] = dict(value)
        self._where = where

    def take(self, name: str, kind: type[T]) -> T:
        """Return a field that must be there and, if it is a string, must not be empty."""
        if name not in self._left:
            raise FileFormatError(f"'{self._where}{name}' is missing")
        value = self._left.pop(name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool) or value == "":
            raise FileFormatError(f"'{self._where}{name}' must be {_KINDS[kind]}, not {value!r:.60}")
        return value

    def take_optional(self, name: str, kind: type[T]) -> T | None:
        """Return a field that must be there, but may be null."""
        if self._left.get(name, ...) is None:
            del self._left[name]
            return None
        return self.take(name, kind)

    def take_count_optional(self, name: str) -> int | None:
        """Return a whole number that is not negative and must be there, but may be null."""
        return self.take_optional(name, int) if self._left.get(name, ...) is None else self.take_count(name)

    def take_number_optional(self, name: str) -> float | None:
        """Return a number that must be there, but may be null."""
        return self.take_optional(name, float) if self._left.get(name, ...) is None else self.take_number(name)

    def take_if(self, name: str, kind: type[T]) -> T | None:
        """Return a field, or None where there is none or it is null."""
        return self.take_optional(name, kind) if name in self._left else None

    def take_or(self, name: str, default: T) -> T:
        """Return a field of the default's type, or the default where there is none."""
        return self.take(name, type(default)) if name in self._left else default

    def take_count(self, name: str, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        value = self.take(name, int)
        if value < least:
            raise FileFormatError(f"'{self._where}{name}' must be at least {least}, not {value}")
        return value

    def take_count_if(self, name: str, least: int = 0) -> int | None:
        """Return a whole number of at least `least`, or None where there is none or it is null."""
        return None if self._left.get(name) is None else self.take_count(name, least)

    def take_number(self, name: str, unit: str = "seconds") -> float:
        """Return a number (of `unit`, as messages say) that is finite and not negative."""
        kind = int if isinstance(self._left.get(name), int) else float
        value = self.take(name, kind)
        if not 0 <= value <= sys.float_info.max:
            raise FileFormatError(f"'{self._where}{name}' must be a number of {unit}, not {value!r:.60}")
        return float(value)

    def take_number_or(self, name: str, default: float) -> float:
        """Return a number, or the default where there is none."""
        return self.take_number(name) if name in self._left else default

    def take_number_if(self, name: str) -> float | None:
        """Return a number, or None where there is none or it is null."""
        return None if self._left.get(name) is None else self.take_number(name)

    def take_fields(self, name: str) -> Fields:
        """Return the fields of an object."""
        return Fields(self.take(name, dict), f"{self._where}{name}.")

    def take_each(self, name: str) -> list[Fields]:
        """Return the fields of each object of a list."""
        return [Fields(each, f"{self._where}{name}[{index}].") for index, each in enumerate(self.take(name, list))]

    def take_counts(self, name: str) -> dict[str, int]:
        """Return an object of whole numbers, none of them negative, under names that are not known beforehand."""
        fields = self.take_fields(name)
        return {key: fields.take_count(key) for key in list(fields._left)}

    def take_strings(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, none of them empty."""
        values = self.take(name, list)
        if not all(isinstance(value, str) and value for value in values):
            raise FileFormatError(f"'{self._where}{name}' must hold strings only")
        return tuple(values)

    def fill(self, defaults: Mapping[str, Any]) -> None:
        """Put a value where there is no field of a name."""
        self._left = {**defaults, **self._left}

    def end(self) -> None:
        """Raise if a field is left that nobody took."""
        if self._left:
            raise FileFormatError(f"'{self._where}{min(self._left)}' is not known here")


_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}
