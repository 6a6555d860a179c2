"""The HTML page that compares several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fsd_inference.markup import Markup, coordinate, join, tag
from fsd_inference.report.axes import ticks
from fsd_inference.report.charts import WIDTH, drawing
from fsd_inference.report.page import legend, notes, page, table
from fsd_inference.report.summary import COLUMNS, Compared, row
from fsd_inference.units import bytes_text, seconds_text, usd_text

_PARTS = (
    ("load", "loading inputs and first layer"),
    ("wait", "waiting for frames"),
    ("unpack", "unpacking"),
    ("compute", "computing"),
    ("pack", "packing"),
)
_BAR, _VALUE = 22.0, 90.0
_NAME_LETTERS, _LETTER = 28, 6.2


def compare_page(runs: Sequence[Compared]) -> str:
    """Return the page as a complete HTML document."""
    title = f"{len(runs)} runs compared"
    one: Callable[[float], list[tuple[str, float]]] = lambda value: [("one", value)]  # noqa: E731
    reports = [run.figures.report for run in runs]
    names = [run.name for run in runs]
    charts = [
        ("Wall time", [one(report.wall_s) for report in reports], seconds_text),
        ("Computing, slowest rank", [one(report.compute_s) for report in reports], seconds_text),
        ("Waiting, mean rank", [one(run.figures.wait_s) for run in runs], seconds_text),
        ("Requests", [one(sum(report.usage.requests.values())) for report in reports], "{:,.10g}".format),
        ("Bytes sent", [one(report.usage.wire_bytes) for report in reports], bytes_text),
    ]
    if all(run.usd is not None for run in runs):
        charts.append(("Cost, USD", [one(run.usd or 0.0) for run in runs], usd_text))
    drawn = [tag("div", tag("h3", name), _bars(names, rows, write, name)) for name, rows, write in charts]
    caption = "Compute time is that of the slowest rank, waiting time the mean of all ranks"
    remarks = list(dict.fromkeys(note for run in runs for note in run.priced.notes if "prediction" not in note))
    remarks += [
        f"{run.name} failed: {run.figures.report.error.get('message')}" for run in runs if run.figures.report.error
    ]
    dates = sorted({run.priced.metered.date for run in runs if run.priced.metered is not None})
    if dates:
        remarks.append(f"Prices of {', '.join(dates)}.")
    return page(
        title,
        tag("header", tag("p", "FSD-Inference", class_="eyebrow"), tag("h1", title)),
        tag("section", tag("h2", "Figures"), table(caption, COLUMNS, map(row, runs)), notes(remarks)),
        tag("section", tag("h2", "Side by side"), tag("div", *drawn, class_="columns")),
        _time(runs),
        tag("footer", "Each run's own report.html has its timeline, layers and communication matrix."),
    )


def _time(runs: Sequence[Compared]) -> Markup:
    """Return a chart of the mean time of the ranks by activity, for runs that have ranks."""
    parallel = [run for run in runs if run.figures.ranks]
    if not parallel:
        return Markup()
    rows = []
    for run in parallel:
        ranks = run.figures.ranks
        mean = {name: sum(getattr(rank, f"{name}_s") for rank in ranks) / len(ranks) for name, _ in _PARTS}
        rows.append([(name, mean[name]) for name, _ in _PARTS])
    title = "Time by activity, mean rank"
    chart = _bars([run.name for run in parallel], rows, seconds_text, title, wide=True)
    return tag("section", tag("h2", title), legend(_PARTS), tag("div", chart, class_="scroll"))


def _bars(
    names: Sequence[str],
    rows: Sequence[Sequence[tuple[str, float]]],
    write: Callable[[float], str],
    title: str,
    *,
    wide: bool = False,
) -> Markup:
    """Return a chart with one horizontal bar per run, stacked from (activity, value) pairs."""
    width = WIDTH if wide else 0.55 * WIDTH
    largest = max((sum(value for _, value in row) for row in rows), default=0.0)
    label = 20 + _LETTER * max(min(len(name), _NAME_LETTERS) for name in names)
    scale = (width - label - _VALUE) / largest if largest else 0.0
    bottom = 6 + len(rows) * _BAR
    marks = []
    for value in ticks(largest, 4):
        at = coordinate(label + value * scale)
        marks.append(tag("line", class_="grid", x1=at, x2=at, y1=2, y2=coordinate(bottom)))
    for index, (name, stack) in enumerate(zip(names, rows, strict=True)):
        x, y = label, 6 + index * _BAR
        shown = name if len(name) <= _NAME_LETTERS else f"…{name[1 - _NAME_LETTERS :]}"
        middle = coordinate(y + _BAR * 0.62)
        pieces = [tag("text", shown, class_="name", x=label - 8, y=middle, text_anchor="end")]
        for activity, value in stack:
            size = value * scale
            box = {"x": coordinate(x), "y": coordinate(y + 3), "width": coordinate(size), "height": _BAR - 6}
            tip = f"{name}\n{write(value)}" if len(stack) == 1 else f"{name}\n{activity} {write(value)}"
            pieces.append(tag("rect", class_=f"b-{activity}", data_tip=tip, **box))
            x += size
        pieces.append(
            tag("text", write(sum(value for _, value in stack)), class_="tick", x=coordinate(x + 6), y=middle)
        )
        marks.append(join(*pieces))
    return drawing(join(*marks), bottom + 4, title, f"{len(rows)} runs; largest {write(largest)}.", width=width)
