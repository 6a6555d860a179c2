"""The HTML page of a verification on AWS."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from fsd_inference.atomic import atomic_files, filled_directory
from fsd_inference.markup import Markup, tag
from fsd_inference.report.page import facts, notes, page, table
from fsd_inference.report.verification import Comparison, Verification, VerifiedRun
from fsd_inference.units import usd_text

RECORD, PAGE = "verification.json", "verification.html"


def verification_page(record: Verification) -> str:
    """Return the page as a complete HTML document."""
    title = "Verification on AWS" + ("" if record.is_good else ": not passed")
    remarks = [text for text in (record.problem, record.left) if text]
    rows = [
        ("stack", "none was made" if record.stack is None else f"{record.stack.name}, {record.stack.region}"),
        ("time", f"{_time(record.began)} to {_time(record.ended)}"),
        ("cost", f"USD {usd_text(record.spent_usd)} of at most {record.limit_usd:g}"),
    ]
    return page(
        title,
        tag("header", tag("p", "FSD-Inference", class_="eyebrow"), tag("h1", title)),
        tag("section", facts(rows), notes(remarks)),
        tag("section", tag("h2", "Runs"), table("Each run and its answer", RUN_COLUMNS, map(run_row, record.runs))),
        *(_compared(run.name, run.comparisons, ("predicted", "counted")) for run in record.runs if run.comparisons),
        _compared("Bill", record.bill, ("counted by the runs", "CloudWatch")) if record.bill else Markup(),
    )


RUN_COLUMNS = ("run", "state", "same bits as a local process", "USD predicted", "USD counted", "remark")
"""Headers of a table of runs, whose cells `run_row` returns."""


def run_row(run: VerifiedRun) -> tuple[str, ...]:
    """Return a run as a row of a table."""
    same = {True: "yes", False: "NO", None: ""}[run.identical]
    counted = "" if run.counted_usd is None else usd_text(run.counted_usd)
    return run.name, run.state, same, usd_text(run.predicted_usd), counted, run.note or ""


def bill_rows(record: Verification) -> list[tuple[str, ...]]:
    """Return the rows of the table that compares the runs' counts with CloudWatch's."""
    return [_row(line) for line in record.bill]


def save_verification(record: Verification, directory: Path) -> Path:
    """Write ``verification.json`` and ``verification.html`` together; return the path of the page."""
    html = verification_page(record)
    with filled_directory(directory) as folder, atomic_files() as place:
        place(folder / RECORD).write_text(json.dumps(record.to_json(), indent=1), encoding="utf-8")
        place(folder / PAGE).write_text(html, encoding="utf-8")
    return directory / PAGE


def _compared(title: str, lines: Iterable[Comparison], names: tuple[str, str]) -> Markup:
    return tag("section", tag("h2", title), table(title, ("figure", *names, "ratio"), map(_row, lines)))


def _row(line: Comparison) -> tuple[str, ...]:
    return line.what, *map(_number, (line.predicted, line.counted, line.ratio))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
