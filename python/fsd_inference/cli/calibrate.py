"""`fsd calibrate`: measure this machine, or fit service latencies to reports of runs; writes a file for --timing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsd_inference.atomic import write_text
from fsd_inference.cli.console import Output, table
from fsd_inference.cli.options import Json, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import FileFormatError

if TYPE_CHECKING:
    from fsd_inference.run_report import RunReport

EXAMPLES = examples(
    "fsd calibrate -o kernel.json",
    "fsd calibrate --runs run1 --runs run2 -o services.json",
    "fsd simulate net --samples 10000 --workers 8 --timing kernel.json --timing services.json",
)


def calibrate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Timing file to write, for --timing of other commands.")
    ],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--runs", help="A report.json, or its directory, to fit service latencies to; may be repeated."),
    ] = None,
    base: Annotated[
        Literal["aws", "emulator"], typer.Option("--base", help="The built-in timing that the file modifies.")
    ] = "aws",
    as_json: Json = False,
) -> None:
    """Measure the throughput of the kernels on one core of this machine, or fit latencies and bandwidth to runs.

    Predictions scale the throughput by Lambda's rule (one vCPU for each 1,769 MB) and by the value core.factor, which
    is not measured here: it is 1 unless a timing file sets it.
    """
    from fsd_inference.forecast.calibration import machine, measure_kernel  # noqa: PLC0415
    from fsd_inference.forecast.fitting import fit_services  # noqa: PLC0415
    from fsd_inference.forecast.timing import load_timing, timing_json  # noqa: PLC0415
    from fsd_inference.run_report import REPORT_FILE  # noqa: PLC0415

    out = Output(as_json)
    check_output(output)
    for path in runs or []:
        check_distinct(runs=path / REPORT_FILE if path.is_dir() else path, output=output)
    if runs:
        what = f"{len(runs)} runs"
        found = fit_services([_read(path) for path in runs])
    else:
        what = machine()
        with out.progress() as tasks:
            tasks.begin("measuring", None)
            found = measure_kernel()
    load_timing(base).with_values("these", found)  # raises for invalid values before anything is written
    value = timing_json(output.stem, time.strftime("%Y-%m-%d"), base, found)
    write_text(output, json.dumps(value, indent=1) + "\n")
    rows = [(name, f"{entry['value']:,.6g}", entry["unit"]) for name, entry in value["values"].items()]
    out.result(
        {"path": str(output), **value},
        table(what, ("name", "value", "unit"), rows),
        f"{output}: timing file for --timing",
    )


def _read(path: Path) -> RunReport:
    from fsd_inference.forecast.fitting import check_report  # noqa: PLC0415
    from fsd_inference.run_report import RunReport  # noqa: PLC0415

    report = RunReport.load(path)
    try:
        check_report(report)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    return report
