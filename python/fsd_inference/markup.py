"""Builders of HTML and SVG that escape all text that is not marked as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


class Markup(str):
    """A string that is markup, and so is not escaped again."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an HTML or SVG element.

    Parameters
    ----------
    name : str
        Name of the element.
    *children : object
        Content of the element: markup is inserted as it is, anything else as escaped text.
    **attributes : object
        Attributes of the element. A trailing underscore is dropped (``class_``, ``for_``), other underscores become
        hyphens; attributes with the value None are left out.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = join(*children)
    return Markup(f"<{name}{written}>{inner}</{name}>")


def join(*children: object) -> Markup:
    """Concatenate children: markup as it is, anything else as escaped text."""
    return Markup("".join(each if isinstance(each, Markup) else escape(str(each)) for each in children))


def coordinate(value: float) -> str:
    """Format a coordinate with at most two decimals."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def facts_table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a titled table of names and values, as notebooks show it."""
    return tag(
        "table",
        tag("caption", title, style="text-align: left"),
        *(tag("tr", tag("th", name), tag("td", value, style="text-align: left")) for name, value in rows),
    )


def records_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a titled table with names of its columns, as notebooks show it."""
    return tag(
        "table",
        tag("caption", title, style="text-align: left"),
        tag("tr", *(tag("th", column) for column in columns)),
        *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows),
    )
