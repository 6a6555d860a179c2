"""Report pages in a real browser: rendered in dark and light mode without console messages."""

from __future__ import annotations

import re
import struct
import zlib
from collections import Counter
from pathlib import Path

import pytest

from fsd_inference.prediction import FunctionTime, Prediction
from fsd_inference.usage import Usage
from tests.support.browser import render, screenshot
from tests.support.reports import made_up, rank_value

_POINT = """
<script>
for (const [selector, x] of [SELECTORS]) {
  const at = document.querySelector(selector);
  const box = at.getBoundingClientRect();
  const where = { bubbles: true, clientX: box.left + x * box.width, clientY: box.top + 0.55 * box.height };
  at.dispatchEvent(new PointerEvent("pointermove", where));
  document.title += "|" + document.getElementById("tip").textContent.replace("\\n", "; ");
}
</script></body>"""


def pixels(image: Path) -> Counter[bytes]:
    """Count the colours of a PNG without transparency, a line of filters at a time."""
    data, at, packed = image.read_bytes(), 8, b""
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}
    size = 3 if kind == 2 else 4
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += length + 12
    raw, stride = zlib.decompress(packed), width * size
    above, colours = bytearray(stride), Counter[bytes]()
    for row in range(height):
        line = bytearray(raw[row * (stride + 1) + 1 : (row + 1) * (stride + 1)])
        _unfilter(raw[row * (stride + 1)], line, above, size)
        colours.update(bytes(line[i : i + 3]) for i in range(0, stride, size))
        above = line
    return colours


def _unfilter(kind: int, line: bytearray, above: bytearray, size: int) -> None:
    for i in range(len(line)):
        left = line[i - size] if i >= size else 0
        up, corner = above[i], above[i - size] if i >= size else 0
        match kind:
            case 1:
                line[i] = (line[i] + left) & 255
            case 2:
                line[i] = (line[i] + up) & 255
            case 3:
                line[i] = (line[i] + (left + up) // 2) & 255
            case 4:
                line[i] = (line[i] + _paeth(left, up, corner)) & 255


def _paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda each: abs(guess - each))


@pytest.mark.parametrize("workers", [1, 8, 200])
def test_a_page_draws_itself_without_a_complaint(tmp_path: Path, workers: int) -> None:
    page = made_up(workers, layers=20).save(tmp_path).with_name("report.html")
    rendered = render(page)
    assert rendered.console == []
    assert "<h2>Timeline</h2>" in rendered.dom
    assert rendered.dom.count("</svg>") == (5 if workers > 1 else 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"ranks": [], "channel": "serial"},
        {"ranks": [rank_value(0, 4, 2)], "error": {"type": "StallError", "message": "no frame from rank 3"}},
        {"ranks": [{"rank": r, "started": 1.0, "ended": 2.0} for r in range(4)]},
    ],
    ids=["serial", "failed", "old"],
)
def test_pages_that_lack_something_do_not_complain(tmp_path: Path, changes: dict[str, object]) -> None:
    page = made_up(4, layers=2, **changes).save(tmp_path).with_name("report.html")
    assert render(page).console == []


def test_the_test_hears_the_console(tmp_path: Path) -> None:
    """Errors of the script, and what the page may not load, are noticed."""
    page = made_up(2).save(tmp_path).with_name("report.html")
    html = page.read_text()
    page.write_text(html.replace('"use strict";', '"use strict"; missing();'))
    assert "missing is not defined" in "".join(render(page).console)
    page.write_text(html.replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">'))
    assert "Content Security Policy" in "".join(render(page).console)


def test_what_is_under_the_pointer_is_told(tmp_path: Path) -> None:
    page = made_up(8).save(tmp_path).with_name("report.html")
    selectors = '["path[data-name=load]", 0.5], ["g[data-tip]", 0.5], ["svg.matrix rect.frame", 0.7], ["h1", 0.5]'
    page.write_text(page.read_text().replace("</body>", _POINT.replace("SELECTORS", selectors)))
    rendered = render(page)
    assert rendered.console == []
    (title,) = re.findall("<title>(Run[^<]*)", rendered.dom)
    _, load, bar, cell, nothing = title.split("|")
    assert load == "rank 0: load; at 0.400 s, 500.0 ms"
    assert bar == "layer 0; 8.0 kB"
    assert cell == "rank 4 to rank 5; 3.6 kB"
    assert nothing == cell  # hidden
    assert 'id="tip" aria-hidden="true" hidden=""' in rendered.dom


def test_replicas_are_called_so_beside_what_was_foreseen(tmp_path: Path) -> None:
    predicted = Prediction(Usage(wire_bytes=5), (FunctionTime(1769, "x86_64", 2.5, 3),), 4.0)
    ranks = [rank_value(replica, 3, 6) for replica in range(3)]
    report = made_up(1, channel="serial", replicas=3, ranks=ranks, predicted=predicted)
    page = report.save(tmp_path).with_name("report.html")
    page.write_text(page.read_text().replace("</body>", _POINT.replace("SELECTORS", '["path[data-name=load]", 0.5]')))
    rendered = render(page)
    assert rendered.console == []
    assert "|replica 0: load; at 0.300 s, 500.0 ms<" in rendered.dom
    assert "<h2>Cost and counts: predicted against metered</h2>" in rendered.dom
    assert "Bytes sent between ranks" not in rendered.dom


@pytest.mark.parametrize(("dark", "background"), [(False, b"\xf5\xf6\xf8"), (True, b"\x0e\x12\x16")])
def test_it_is_drawn_in_light_and_dark(tmp_path: Path, dark: bool, background: bytes) -> None:
    page = made_up(8).save(tmp_path).with_name("report.html")
    assert screenshot(page, tmp_path / "page.png", width=700, height=900, dark=dark) == []
    colours = pixels(tmp_path / "page.png")
    assert colours[background] > 10_000
    compute = b"\x5b\x97\xf7" if dark else b"\x25\x63\xc9"
    assert colours[compute] > 500
