"""`fsd report`: tables, HTML pages and plots of runs, from their reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fsd_inference.atomic import write_text
from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, PricesFile, Region, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.limits import LARGEST_FUNCTION_MB
from fsd_inference.run_report import REPORT_FILE

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fsd_inference.cost.prices import PriceTable
    from fsd_inference.report.summary import Compared

EXAMPLES = examples(
    "fsd report run1 run2 run3",
    "fsd report run1 run2 -o compared.html",
    "fsd report run1 -o run1.html --plots",
)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Directories written by `fsd infer --report`, or their report.json.", metavar="DIR..."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="HTML file to write: a page about the run, or a comparison of several."),
    ] = None,
    plots: Annotated[
        bool,
        typer.Option(
            "--plots", help="Write timeline.png, layers.png and matrix.png next to each report (needs matplotlib)."
        ),
    ] = False,
    region: Region = "us-east-1",
    prices: PricesFile = None,
    memory_mb: Annotated[
        int | None,
        typer.Option(
            "--memory",
            min=128,
            max=LARGEST_FUNCTION_MB,
            help="Memory of a worker function in MB. Default: that of the run, or 1,769 (one vCPU).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the time, requests, bytes and cost of runs, local or on Lambda."""
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.report.plots import check_plots, save_plots  # noqa: PLC0415
    from fsd_inference.report.summary import COLUMNS, row, summary  # noqa: PLC0415

    if output is not None:
        check_output(output)
        for path in runs:
            check_distinct(DIR=path / REPORT_FILE if path.is_dir() else path, output=output)
    if plots:
        check_plots()
    table_of_prices = load_prices(region, prices)
    found = [_read(path, name, table_of_prices, memory_mb) for path, name in zip(runs, _names(runs), strict=True)]
    if output is not None:
        write_text(output, _page(found))
    if plots:
        for path, run in zip(runs, found, strict=True):
            save_plots(run.figures, path if path.is_dir() else path.parent)
    title = "Runs (compute: slowest rank; wait: mean of the ranks)"
    if len(found) == 1:
        shown: RenderableType = facts(summary(found[0].figures, found[0].priced))
    else:  # one column for each run, since few runs with short names are compared
        names, *lines = zip(COLUMNS, *map(row, found), strict=True)
        shown = table(title, names, lines)
    Output(as_json).result({"runs": [run.record() for run in found]}, shown)


def _read(path: Path, name: str, prices: PriceTable, memory_mb: int | None) -> Compared:
    from fsd_inference.report import Report  # noqa: PLC0415
    from fsd_inference.report.figures import run_figures  # noqa: PLC0415
    from fsd_inference.report.pricing import price  # noqa: PLC0415
    from fsd_inference.report.summary import Compared  # noqa: PLC0415

    run = Report.load(path)
    try:
        return Compared(name, run_figures(run), price(run, prices=prices, memory_mb=memory_mb))
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error


def _names(runs: list[Path]) -> list[str]:
    """Return names for runs: those of their directories, or the full paths if these names are not unique."""
    places = [(path.parent if path.name == REPORT_FILE else path).resolve() for path in runs]
    if len(set(places)) < len(places):
        raise SettingError("a run is given twice; give each run once")
    short = [place.name for place in places]
    return short if len(set(short)) == len(short) else [str(path) for path in runs]


def _page(runs: list[Compared]) -> str:
    from fsd_inference.report.compare_page import compare_page  # noqa: PLC0415
    from fsd_inference.report.run_page import run_page  # noqa: PLC0415

    return run_page(runs[0].figures, runs[0].priced) if len(runs) == 1 else compare_page(runs)
