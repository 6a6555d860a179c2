"""`fsd cost`: compute the cost of a run from its report, or compare the cost model with the paper's runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, PricesFile, Region, examples
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.limits import COORDINATOR_MB, LARGEST_FUNCTION_MB
from fsd_inference.units import usd_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fsd_inference.cost.model import Cost
    from fsd_inference.cost.paper import PaperComparison, PaperRun

EXAMPLES = examples(
    "fsd cost run1/report.json",
    "fsd cost run1 --memory 3538 --architecture arm64 --publish-units message --queue-writes billed",
    "fsd cost --paper",
)


def cost(
    report: Annotated[
        Path | None, typer.Argument(help="A report.json written by `fsd infer --report`, or its directory.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Compare the cost model with the runs of arXiv 2403.15195 instead.")
    ] = False,
    region: Region = "us-east-1",
    prices: PricesFile = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            min=128,
            max=LARGEST_FUNCTION_MB,
            help="Memory of a worker function in MB. Default: that of the run, or 1,769 (one vCPU).",
        ),
    ] = None,
    coordinator_memory: Annotated[
        int,
        typer.Option(
            "--coordinator-memory",
            min=128,
            max=LARGEST_FUNCTION_MB,
            help="Memory of the coordinator function in MB.",
        ),
    ] = COORDINATOR_MB,
    architecture: Annotated[
        Literal["x86_64", "arm64"], typer.Option("--architecture", help="Architecture of the functions.")
    ] = "x86_64",
    publish_units: Annotated[
        Literal["batch", "message"],
        typer.Option(
            "--publish-units", help="Unit that SNS rounds up to 64 KiB: each batch (as in the paper), or each message."
        ),
    ] = "batch",
    delivery: Annotated[
        Literal["free", "paid"],
        typer.Option("--delivery", help="Whether data transfer from SNS to SQS is free, or paid (as in the paper)."),
    ] = "free",
    queue_writes: Annotated[
        Literal["free", "billed"],
        typer.Option(
            "--queue-writes", help="Whether messages that SNS writes into queues are free, or billed as SQS requests."
        ),
    ] = "free",
    storage: Annotated[
        Literal["standard", "express"], typer.Option("--storage", help="Storage class of the S3 buckets of runs.")
    ] = "standard",
    as_json: Json = False,
) -> None:
    """Compute what a run costs on AWS, by service, from its counts; or compare the model with the paper's runs.

    Lambda time is taken from the report, as the ranks took on the machine where they ran. Where AWS's pricing rules are
    unclear, options select how to read them.
    """
    if paper == (report is not None):
        raise SettingError("give either a report.json or --paper")
    out = Output(as_json)
    if paper:
        record, shown = _paper()
        out.result(record, *shown)
        return
    from fsd_inference.cost.metered import function_times  # noqa: PLC0415
    from fsd_inference.cost.model import Billing, run_cost  # noqa: PLC0415
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.run_report import RunReport  # noqa: PLC0415

    assert report is not None  # noqa: S101 - checked above
    run = RunReport.load(report)
    try:
        functions = function_times(run, memory_mb=memory, architecture=architecture, coordinator_mb=coordinator_memory)
    except FileFormatError as error:
        raise FileFormatError(f"{report}: {error}") from error
    found = run_cost(
        run.usage,
        functions,
        load_prices(region, prices),
        samples=run.samples,
        billing=Billing(publish_units, delivery, queue_writes, storage),
    )
    title = f"{report}: channel {run.channel}, P={run.workers}, {run.samples:,} samples"
    out.result({"report": str(report), **found.to_json()}, *_tables(title, found))


def _tables(title: str, found: Cost) -> list[RenderableType]:
    rows = [(line.service, line.item, f"{line.quantity:,.6g}", line.unit, usd_text(line.usd)) for line in found.lines]
    drawn = table(
        f"{title}; USD, prices of {found.region}, {found.date}", ("service", "item", "quantity", "unit", "USD"), rows
    )
    services = ", ".join(f"{name} {usd_text(usd)}" for name, usd in found.by_service().items() if usd)
    total = facts(
        [
            ("services", services),
            ("request", f"USD {usd_text(found.usd)} (prices of {found.date})"),
            ("sample", f"USD {usd_text(found.usd_per_sample)} (prices of {found.date})"),
        ]
    )
    return [drawn, total]


def _paper() -> tuple[dict[str, Any], list[RenderableType]]:
    from fsd_inference.cost.paper import SOURCE, compare, paper_prices, paper_runs  # noqa: PLC0415

    compared = [(run, compare(run)) for run in paper_runs()]
    largest = max((found.largest_error for _, found in compared if found), default=0.0)
    count = sum(found is not None for _, found in compared)
    prices = paper_prices()
    drawn = table(
        f"{SOURCE}: its costs and the model's; USD, {prices}",
        ("channel", "neurons", "P", "partition", "paper", "model", "largest error"),
        (_row(*each) for each in compared),
    )
    said = (
        f"largest error of any of {count} costs and their parts (Lambda, SNS, SQS, S3): {largest:.2%}; "
        "rows without costs are not in the authors' sheet"
    )
    record = {
        "source": SOURCE,
        "region": prices.region,
        "prices_of": prices.date,
        "largest_error": largest,
        "rows": [_record(*each) for each in compared],
    }
    return record, [drawn, said]


def _row(run: PaperRun, found: PaperComparison | None) -> tuple[str, ...]:
    named = (run.channel, f"{run.neurons:,}", str(run.workers), run.partition)
    if found is None or run.total_usd is None:
        return (*named, "-", "-", "-")
    return (*named, usd_text(run.total_usd), usd_text(found.cost.usd), f"{found.largest_error:.2%}")


def _record(run: PaperRun, found: PaperComparison | None) -> dict[str, Any]:
    return {
        "channel": run.channel,
        "neurons": run.neurons,
        "workers": run.workers,
        "partition": run.partition,
        "paper_usd": run.total_usd,
        "model_usd": found and found.cost.usd,
        "services": found and {name: found.cost.by_service()[name] for name in run.usd},
        "errors": found and dict(found.errors),
    }
