"""Generated tables and figures of documentation pages: each table is replaced between two markers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 100
_COLOURS = 256  # palette size of a figure, enough for lines and text


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def put_block(page: Path, name: str, text: str) -> None:
    """Replace the text between ``<!-- NAME -->`` and ``<!-- end NAME -->`` in a page.

    Raises
    ------
    ValueError
        The page has no such markers.
    """
    before = page.read_text(encoding="utf-8")
    marks = f"<!-- {name} -->", f"<!-- end {name} -->"
    block = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.DOTALL)
    if len(block.findall(before)) != 1:
        raise ValueError(f"{page} must hold {marks[0]} and {marks[1]} once")
    page.write_text(block.sub(lambda _: f"{marks[0]}\n{text}\n{marks[1]}", before), encoding="utf-8")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file with a palette, which keeps it small."""
    from PIL import Image  # noqa: PLC0415 - installed with matplotlib, which is optional

    whole = BytesIO()
    figure.savefig(whole, dpi=_DPI, format="png")
    with Image.open(whole) as image:
        image.convert("RGB").quantize(_COLOURS).save(path, optimize=True)
