"""Self-contained HTML pages with inline style sheet, script and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources

from fsd_inference.markup import Markup, join, tag

_FILES = resources.files("fsd_inference.report")
# Pages load no external resources; the policy makes browsers enforce it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(title: str, *parts: Markup) -> str:
    """Return a complete HTML document.

    Parameters
    ----------
    title : str
        Title of the document.
    *parts : Markup
        Children of the ``main`` element.
    """
    head = join(
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", title),
        tag("style", _file("page.css")),
    )
    script = tag("script", _file("page.js"))
    body = tag("body", tag("main", *parts), Markup('<div id="tip" aria-hidden="true" hidden></div>'), script)
    return f'<!doctype html>\n<html lang="en">\n{tag("head", head)}\n{body}\n</html>\n'


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], foot: Sequence[object] | None = None
) -> Markup:
    """Return a table whose first column has the row headers and whose last row is `foot`, if given."""
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = tag("tbody", *(_line(row) for row in rows))
    last = tag("tfoot", _line(foot)) if foot is not None else Markup()
    return tag("div", tag("table", tag("caption", caption), head, body, last), class_="scroll")


def _line(row: Sequence[object]) -> Markup:
    return tag("tr", tag("th", row[0], scope="row"), *(tag("td", each) for each in row[1:]))


def facts(rows: Iterable[tuple[str, object]]) -> Markup:
    """Return a description list of (name, value) pairs."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in rows), class_="facts")


def tiles(rows: Iterable[tuple[str, str, str]]) -> Markup:
    """Return the key figures at the top of a page, each a name, a value and a remark."""
    drawn = (tag("div", tag("dt", name), tag("dd", value, tag("small", more))) for name, value, more in rows)
    return tag("section", tag("dl", *drawn, class_="tiles"), class_="bare")


def notes(texts: Iterable[str]) -> Markup:
    """Return the notes on a drawing or table as a list; empty markup if there are none."""
    lines = [tag("li", each) for each in texts]
    return tag("ul", *lines, class_="notes") if lines else Markup()


def legend(names: Iterable[tuple[str, str]]) -> Markup:
    """Return the colour legend of a drawing for (activity, label) pairs."""
    lines = (tag("li", tag("i", class_=f"b-{activity}"), name) for activity, name in names)
    return tag("ul", *lines, class_="legend")


def _file(name: str) -> Markup:
    return Markup((_FILES / name).read_text(encoding="utf-8"))
