"""HTML and SVG as strings in which everything that is not markup already is escaped."""

from __future__ import annotations

from html import escape


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
    *children : object
        Markup as it is, anything else as escaped text.
    **attributes : object
        ``class_`` and ``for_`` stand for names that Python keeps for itself, other underscores for hyphens. None: not
        there.
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = join(*children)
    return Markup(f"<{name}{said}>{inner}</{name}>")


def join(*children: object) -> Markup:
    """Return children one after the other."""
    return Markup("".join(each if isinstance(each, Markup) else escape(str(each)) for each in children))


def coordinate(value: float) -> str:
    """Return a coordinate with the digits that can be seen."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
