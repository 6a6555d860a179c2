"""`fsd advise`: recommend a variant, a number of workers and a memory size for a network, or a server instead."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Buckets, CheckpointEvery, Json, PricesFile, PublishQuota, Region, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import SettingError
from fsd_inference.limits import LARGEST_FUNCTION_MB
from fsd_inference.units import seconds_text, usd_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fsd_inference.forecast.options import Advice, Option

EXAMPLES = examples(
    "fsd advise net --batch 10000 --input digits.npz",
    "fsd advise net --batch 10000 --deadline 30s --budget 0.01 --queries-per-day 500 -o options.png",
)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SHOWN_OF_A_VARIANT = 3

Network = Annotated[Path, typer.Argument(help="Directory of a network.", metavar="NETWORK", autocompletion=networks)]
Batch = Annotated[int, typer.Option("--batch", help="Number of samples in a query.")]
Input = Annotated[
    Path | None,
    typer.Option(
        "--input", help="File of typical inputs. Default: random inputs in which a fifth of the features are 1."
    ),
]
LargestFunction = Annotated[
    int,
    typer.Option(
        "--largest-function",
        min=128,
        max=LARGEST_FUNCTION_MB,
        help="Largest function memory in MB that your account allows; new accounts start with 3008.",
    ),
]
MostWorkers = Annotated[int, typer.Option("--most-workers", min=1, help="Maximum number of functions in a run.")]
Architecture = Annotated[
    Literal["x86_64", "arm64"], typer.Option("--architecture", help="Architecture of the functions.")
]
TimingFile = Annotated[
    Path | None, typer.Option("--timing", help="File of latencies and rates, as written by `fsd calibrate`.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache", help="Directory that caches the plans of partitioned networks. Default: the user's cache directory."
    ),
]


def advise(
    network: Network,
    batch: Batch,
    inputs: Input = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", help="Maximum time of a query, such as 30s, 500ms or 2m.")
    ] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Maximum cost of a query in USD.")] = None,
    queries: Annotated[
        float | None,
        typer.Option(
            "--queries-per-day", help="Number of queries a day, to compare servers and functions that are kept warm."
        ),
    ] = None,
    largest: LargestFunction = LARGEST_FUNCTION_MB,
    most_workers: MostWorkers = 64,
    architecture: Architecture = "x86_64",
    cold: Annotated[
        bool | None,
        typer.Option(
            "--cold/--warm",
            help="Whether functions start cold, which takes longer and is billed. Default: cold, unless "
            "--queries-per-day keeps them warm.",
        ),
    ] = None,
    buckets: Buckets = 1,
    region: Region = "us-east-1",
    prices: PricesFile = None,
    timing: TimingFile = None,
    publish_quota: PublishQuota = None,
    managed: Annotated[
        str | None,
        typer.Option(
            "--managed-instances",
            metavar="TYPE",
            help="Also consider Lambda Managed Instances of this EC2 instance type, such as m7g.4xlarge. Three are "
            "paid all month, with or without queries: they do not scale to zero.",
        ),
    ] = None,
    checkpoint_every: CheckpointEvery = 0,
    cache: Cache = None,
    every: Annotated[bool, typer.Option("--all", help="Show all options, not only the best of each variant.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File for a plot of cost against time (.png or .svg; needs matplotlib)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend how to run a network: predict time, cost and memory of each option, and rank the options.

    Without limits the cheapest option comes first; with a deadline, the cheapest option that meets it; with only a
    budget, the fastest option within it. Options whose network could not be partitioned within seconds are estimated
    and marked ~. Options that no other option beats in both time and cost are marked *.
    """
    from fsd_inference.forecast.options import Question  # noqa: PLC0415

    out = Output(as_json)
    question = Question(
        batch,
        None if deadline is None else seconds_of(deadline, "--deadline"),
        budget,
        queries,
        largest,
        architecture,
        most_workers,
        cold,
        buckets,
        managed_instances=managed,
        checkpoint_every=checkpoint_every,
    )
    check_distinct(NETWORK=network, input=inputs, output=output, prices=prices, timing=timing)
    if output is not None:
        check_output(output)
        from fsd_inference.report.advice_plot import check_plot  # noqa: PLC0415

        check_plot(output)
    with out.progress() as tasks:
        from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
        from fsd_inference.forecast.advising import advise as advise_network  # noqa: PLC0415
        from fsd_inference.forecast.timing import load_timing  # noqa: PLC0415
        from fsd_inference.network import Network, load_inputs  # noqa: PLC0415

        check_network(network)
        loaded = Network.load(network)
        priced = load_prices(region, prices)
        files = [] if timing is None else [timing]
        advice = advise_network(
            loaded,
            question,
            timing=load_timing("aws", *files, region=priced.region, publish_quota=publish_quota),
            prices=priced,
            x=None if inputs is None else load_inputs(inputs, loaded.widths[0]),
            cache=cache,
            progress=tasks,
        )
    best = advice.best
    if output is not None:
        from fsd_inference.report.advice_plot import plot_advice  # noqa: PLC0415

        plot_advice(advice, f"{loaded.name}, {batch:,} samples", output)
    out.result({"network": str(network), "best": best.to_json(), **advice.to_json()}, *_shown(advice, every, inputs))


def seconds_of(text: str, what: str) -> float:
    """Parse a duration such as 30s or 2m to seconds; raise SettingError, naming the flag `what`, if it is invalid."""
    match = re.fullmatch(r"([-+]?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?", text)
    if match is None:
        raise SettingError(f"{what} must be a number with a unit of ms, s, m or h, such as 30s or 2m, not {text!r}")
    return float(match[1]) * _UNITS[match[2] or "s"]


def check_network(path: Path) -> None:
    """Raise SettingError for a directory of shards: the planner partitions the network itself."""
    from fsd_inference.partitioning import MANIFEST_FILE  # noqa: PLC0415

    if (path / MANIFEST_FILE).is_file():
        raise SettingError(f"{path} holds shards; give the network that they were made from")


def _shown(advice: Advice, every: bool, inputs: Path | None) -> list[RenderableType]:
    from fsd_inference.forecast.options import OPTION_COLUMNS  # noqa: PLC0415

    best = advice.best
    rows = advice.options if every else _few(advice)
    drawn = table(advice.title, OPTION_COLUMNS, (option.row() for option in rows))
    said: list[tuple[str, object]] = [
        ("best", f"{best.name}: {seconds_text(best.wall_s)}, USD {usd_text(best.usd or 0.0)} a query"),
        ("reason", best.reason),
    ]
    said += [("next", _compared(best, other)) for other in advice.options[1:2] if other.problem is None]
    if advice.break_even is not None:
        said.append(("servers", str(advice.break_even)))
    if advice.managed is not None:
        said.append(("managed", str(advice.managed)))
    if inputs is None:
        said.append(
            ("inputs", "random, as none were given: real inputs may need more or less computation and communication")
        )
    if any(option.is_estimated for option in rows):
        said.append(("~", "exchange estimated from other partitions of the network, for lack of time to partition it"))
    if any(option.variant == "express" for option in rows):
        said.append(("express", "modelled only, at the latency of one availability zone: stacks use S3 Standard"))
    if any(option.variant == "direct" for option in rows):
        said.append(("direct", "modelled only, on Lambda MicroVMs: frames at an assumed latency, see docs/microvms.md"))
    if len(rows) < len(advice.options):
        said.append(("more", f"--all shows {len(advice.options) - len(rows)} more options"))
    return [drawn, facts(said)]


def _few(advice: Advice) -> list[Option]:
    """Return the best options of each variant, and the best option for each limit that is exceeded."""
    counts: Counter[str] = Counter()
    broken: set[tuple[str, str | None]] = set()
    rows = []
    for option in advice.options:
        counts[option.variant] += 1
        is_new = option.limit is not None and (option.variant, option.limit) not in broken
        broken.add((option.variant, option.limit))
        if counts[option.variant] <= _SHOWN_OF_A_VARIANT or is_new:
            rows.append(option)
    return rows


def _compared(best: Option, other: Option) -> str:
    assert best.usd is not None  # noqa: S101 - the best option has a price
    assert other.usd is not None  # noqa: S101 - as have all options without a problem
    time, cost = other.wall_s / best.wall_s, other.usd / best.usd
    return f"{other.name}, at {time:.2f} times the time and {cost:.2f} times the cost"
