"""`fsd study`: compute the cost and the latency of a day of queries, with functions and with servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fsd_inference.atomic import write_text
from fsd_inference.cli.advise import (
    Architecture,
    Cache,
    Input,
    LargestFunction,
    MostWorkers,
    Network,
    TimingFile,
    check_network,
    seconds_of,
)
from fsd_inference.cli.console import Output, facts, table
from fsd_inference.cli.options import Json, PricesFile, PublishQuota, Region, examples
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import SettingError
from fsd_inference.fields import read_text
from fsd_inference.limits import ACCOUNT_CONCURRENCY, LARGEST_FUNCTION_MB
from fsd_inference.units import seconds_text, usd_text

if TYPE_CHECKING:
    from fsd_inference.forecast.study import Day
    from fsd_inference.forecast.workload import Query

EXAMPLES = examples(
    "fsd study net --pattern diurnal --queries-per-day 500 --batch 10000 --input digits.npz",
    "fsd study net --trace day.csv --deadline 30s",
)


def study(
    network: Network,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", help="CSV file of a day's queries, with the columns seconds (since midnight) and samples."
        ),
    ] = None,
    pattern: Annotated[
        Literal["sporadic", "diurnal", "bursty"] | None,
        typer.Option("--pattern", help="Generate random queries instead."),
    ] = None,
    queries_per_day: Annotated[
        float, typer.Option("--queries-per-day", help="Mean number of generated queries a day.")
    ] = 100,
    batch: Annotated[int, typer.Option("--batch", help="Median number of samples in a generated query.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the generated queries.")] = 0,
    write_trace: Annotated[Path | None, typer.Option("--write-trace", help="File to write the queries to.")] = None,
    inputs: Input = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="Maximum time of a query, such as 30s.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", help="Maximum cost of a query in USD.")] = None,
    largest: LargestFunction = LARGEST_FUNCTION_MB,
    most_workers: MostWorkers = 16,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency",
            min=1,
            help="Concurrency quota of the account: functions that run at the same time; others wait.",
        ),
    ] = ACCOUNT_CONCURRENCY,
    architecture: Architecture = "x86_64",
    region: Region = "us-east-1",
    prices: PricesFile = None,
    timing: TimingFile = None,
    publish_quota: PublishQuota = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Compute the cost of a day and the latency of its queries, for each variant and for servers.

    Queries come from a file or are generated: sporadic (at any time), diurnal (most at noon) or bursty (many within
    minutes, none for hours).
    """
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.forecast.options import Question  # noqa: PLC0415
    from fsd_inference.forecast.study import study as study_day  # noqa: PLC0415
    from fsd_inference.forecast.timing import load_timing  # noqa: PLC0415
    from fsd_inference.forecast.workload import trace_text  # noqa: PLC0415

    out = Output(as_json)
    check_distinct(NETWORK=network, input=inputs, trace=trace, prices=prices, timing=timing, written=write_trace)
    if write_trace is not None:
        check_output(write_trace)
    queries = _queries(trace, pattern, queries_per_day, batch, seed)
    question = Question(
        max(query.samples for query in queries),
        None if deadline is None else seconds_of(deadline, "--deadline"),
        budget,
        None,
        largest,
        architecture,
        most_workers,
    )
    priced = load_prices(region, prices)
    files = [] if timing is None else [timing]
    timed = load_timing("aws", *files, region=priced.region, publish_quota=publish_quota)
    check_network(network)
    with out.progress() as tasks:
        from fsd_inference.network import Network, load_inputs  # noqa: PLC0415

        loaded = Network.load(network)
        x = None if inputs is None else load_inputs(inputs, loaded.widths[0])
        days = study_day(
            loaded, queries, question, timing=timed, prices=priced, x=x, cache=cache, concurrency=concurrency,
            progress=tasks,
        )  # fmt: skip
    if days[0].problem is not None:
        raise SettingError(_no_day(days))
    if write_trace is not None:
        write_text(write_trace, trace_text(queries))
    samples = sorted(query.samples for query in queries)
    record = {
        "network": str(network),
        "queries": len(queries),
        "samples": {"least": samples[0], "median": samples[len(samples) // 2], "most": samples[-1]},
        "prices": str(priced),
        "timing": str(timed),
        "days": [day.to_json() for day in days],
    }
    title = f"{len(queries):,} queries of {samples[0]:,} to {samples[-1]:,} samples in a day; {priced}; {timed}"
    waited = any(day.throttled for day in days)
    heads = ("alternative", "USD a day", "p50", "p95", "p99", "cold", *(["waited"] * waited), "", "why not")
    drawn = table(title, heads, (_row(day, waited) for day in days))
    said = [("cheapest", days[0].name)]
    if waited:
        said.append(
            ("waited", f"queries that waited for functions: the account runs at most {concurrency:,} at a time")
        )
    if inputs is None:
        said.append(
            ("inputs", "random, as none were given: real inputs may need more or less computation and communication")
        )
    out.result(record, drawn, facts(said))


def _queries(
    trace: Path | None, pattern: str | None, queries_per_day: float, batch: int, seed: int
) -> tuple[Query, ...]:
    from fsd_inference.forecast.workload import drawn_trace, parse_trace  # noqa: PLC0415

    if (trace is None) == (pattern is None):
        raise SettingError("give the queries: either a file with --trace, or a pattern to generate them with --pattern")
    if pattern is not None:
        return drawn_trace(pattern, queries_per_day, batch, seed)
    assert trace is not None  # noqa: S101 - checked above
    return parse_trace(read_text(trace, "text"), str(trace))


def _no_day(days: Sequence[Day]) -> str:
    """Return the message for limits that no alternative meets, with the fastest and the cheapest one."""
    fastest = min(days, key=lambda day: day.latency_s["max"])
    cheapest = min(days, key=lambda day: day.usd)
    return (
        f"no alternative answers all queries within these limits: the fastest is {fastest.name} (at most "
        f"{seconds_text(fastest.latency_s['max'])}, {fastest.problem}), the cheapest {cheapest.name} "
        f"(USD {usd_text(cheapest.usd)} a day, {cheapest.problem})"
    )


def _row(day: Day, waited: bool) -> tuple[str, ...]:
    return (
        day.name,
        usd_text(day.usd),
        *(seconds_text(day.latency_s[name]) for name in ("p50", "p95", "p99")),
        "" if day.cold is None else f"{day.cold:.0%}",
        *([f"{day.throttled:,}" if day.throttled else ""] if waited else []),
        "~" if day.is_estimated else "",
        day.problem or "",
    )
