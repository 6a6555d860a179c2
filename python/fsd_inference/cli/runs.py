"""`fsd runs`: list, show and delete the records of runs on a stack's functions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fsd_inference.cli.console import Output, facts, requests_text, table
from fsd_inference.cli.options import Json, Profile, Stack, examples, use_profile
from fsd_inference.errors import SettingError
from fsd_inference.units import seconds_text

if TYPE_CHECKING:
    from fsd_inference.aws.clients import Clients
    from fsd_inference.aws.lanes import LaneState, LaneTable
    from fsd_inference.aws.metrics import RunMetrics
    from fsd_inference.aws.status import RunStatus
    from fsd_inference.stack_description import StackSpec
    from fsd_inference.store.base import Store

app = typer.Typer(name="runs", help="Runs on a stack: list, show, clean.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ERROR_CHARACTERS = 60


@app.command("list", epilog=examples("fsd runs list --stack stack.json"))
def list_(
    stack: Stack,
    last: Annotated[int, typer.Option("--last", min=1, help="Number of runs to list, the newest first.")] = 20,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """List the newest runs on a stack's functions, and which runs hold its lanes."""
    from fsd_inference.aws.runs import read_statuses  # noqa: PLC0415

    use_profile(profile)
    with _opened(stack) as opened:
        statuses = read_statuses(opened.stores[0], last)
        lanes = [] if opened.lanes is None else opened.lanes.look()
    columns = ("run", "state", "channel", "P", "samples", "received (UTC)", "seconds", "error")
    rows = (
        (
            status.run[:12],
            status.state,
            status.channel,
            status.workers,
            f"{status.samples:,}",
            f"{datetime.fromtimestamp(status.received, UTC):%Y-%m-%d %H:%M:%S}",
            "" if status.ended is None else f"{status.ended - status.received:.1f}",
            "" if status.error is None else _short(f"{type(status.error).__name__}: {status.error}"),
        )
        for status in statuses
    )
    record = {"runs": [_record(status) for status in statuses], "lanes": [_lane_record(lane) for lane in lanes]}
    Output(as_json).result(record, table(f"runs: {len(statuses)}", columns, rows), *_lane_table(lanes))


@app.command(epilog=examples("fsd runs show 3f2a91 --stack stack.json"))
def show(
    run: Annotated[str, typer.Argument(help="Id of the run, or its first digits.", metavar="RUN")],
    stack: Stack,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Show how a run ended, and what each of its ranks did."""
    from fsd_inference.aws.runs import read_run  # noqa: PLC0415

    use_profile(profile)
    with _opened(stack) as opened:
        status, metrics = read_run(opened.stores[0], run)
    record = _record(status) | {"ranks": None if metrics is None else [rank.to_json() for rank in metrics.ranks]}
    if metrics is not None:
        record |= {"memory_mb": metrics.memory_mb, "usage": metrics.usage.to_json()}
    Output(as_json).result(record, facts(_facts(status, metrics)), *([] if metrics is None else [_rank_table(metrics)]))


@app.command(
    epilog=examples(
        "fsd runs clean --older-than 1h --stack stack.json",
        "fsd runs clean 3f2a91c06e8d4b7f9a5d1e2c3b4a5968 --stack stack.json",
    )
)
def clean(
    stack: Stack,
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Ids of runs to delete, even if they may still be running.", metavar="[RUN]..."),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", help="Delete runs that ended longer ago than this, such as 90s, 30m, 1h or 2d."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Delete all runs that have ended.")] = False,
    profile: Profile = None,
    as_json: Json = False,
) -> None:
    """Delete the objects of ended runs from a stack, and release their lanes; other objects expire by themselves.

    The lanes of runs whose leases have expired are freed too. A client that was killed holds its lane for half a minute
    more. Where both the coordinator and the client of a run have gone, its ranks go on, and it keeps its lane and its
    share of the functions that may run at a time until its deadline: give its id to end them at once.
    """
    from fsd_inference.aws.orphans import attempt_of, end_orphans  # noqa: PLC0415
    from fsd_inference.aws.runs import clean as clean_runs  # noqa: PLC0415
    from fsd_inference.limits import LONGEST_POLL_S  # noqa: PLC0415

    use_profile(profile)
    if not (runs or older_than or every):
        raise SettingError("say what to delete: ids of runs, --older-than, or --all")
    age_s = _seconds(older_than) if older_than else 0.0 if every else None
    named = runs or []
    freed: list[int] = []
    with _opened(stack) as opened:
        spec, clients, stores, table_of_lanes = opened

        def end(status: RunStatus) -> None:
            freed.extend(end_orphans(clients, spec, stores, attempt_of(status), status.channel))

        lanes = [] if table_of_lanes is None else table_of_lanes.look()
        holding = {lane.run for lane in lanes if lane.state == "held"}
        dead = {lane.run for lane in lanes if lane.state == "held" and lane.is_over}
        gone = clean_runs(
            stores, spec.longest_run_s, named=named, older_than_s=age_s, holding=holding, dead=dead, end=end
        )
        if table_of_lanes is not None:
            free = {*named, *(traces.run for traces in gone), *(() if age_s is None else dead)}
            for run in sorted(holding & free):
                freed += table_of_lanes.free(run, LONGEST_POLL_S)
            lanes = table_of_lanes.look()
    objects = sum(len(traces.objects) for traces in gone)
    record = {
        "runs": [traces.run for traces in gone],
        "objects": objects,
        "freed_lanes": freed,
        "lanes": [_lane_record(lane) for lane in lanes],
    }
    text = f"runs deleted: {len(gone)}, with {objects:,} objects"
    if freed:
        text += f"; lanes freed: {', '.join(map(str, freed))}"
    Output(as_json).result(record, text, *_lane_table(lanes))


class _Opened(NamedTuple):
    """A stack's description, clients, run buckets, and the table of its lanes' leases if it has lanes."""

    spec: StackSpec
    clients: Clients
    stores: list[Store]
    lanes: LaneTable | None


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    """Yield an opened stack."""
    from fsd_inference.aws.backends import open_buckets  # noqa: PLC0415
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.lanes import open_lanes  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415
    from fsd_inference.usage import UsageMeter  # noqa: PLC0415

    spec, meter = load_stack(path), UsageMeter()
    clients = Clients.of_stack(spec)
    runs, plans = open_buckets(clients, spec, meter)
    try:
        lanes = open_lanes(runs[0], clients, spec, meter=meter) if spec.lanes else None
        yield _Opened(spec, clients, runs, lanes)
    finally:
        for store in (*runs, plans):
            store.close()
        clients.close()


def _record(status: RunStatus) -> dict[str, Any]:
    return {name: value for name, value in status.to_json().items() if name != "results"}


def _lane_record(lane: LaneState) -> dict[str, Any]:
    return {
        "lane": lane.lane,
        "state": lane.state,
        "run": lane.run,
        "attempt": lane.attempt,
        "until": lane.until.isoformat(),
        "expired": lane.is_over,
    }


def _lane_table(lanes: list[LaneState]) -> list[Any]:
    if not lanes:
        return []
    rows = (
        (
            lane.lane,
            f"{lane.state}, expired" if lane.is_over else lane.state,
            lane.run,
            "" if lane.state == "free" else f"{lane.until:%Y-%m-%d %H:%M:%S}",
        )
        for lane in lanes
    )
    return [table("Lanes that have been held", ("lane", "state", "last run", "until (UTC)"), rows)]


def _facts(status: RunStatus, metrics: RunMetrics | None) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("run", f"{status.run}, attempt {status.attempt}"),
        ("state", status.state),
        ("settings", f"{status.channel}, {status.workers} workers, {status.samples:,} samples, {status.layers} layers"),
        ("plan", status.plan),
        ("began", f"{datetime.fromtimestamp(status.received, UTC):%Y-%m-%d %H:%M:%S} UTC"),
    ]
    if status.launched is not None:
        rows.append(("launched", f"{seconds_text(status.launched - status.received)} later"))
    if status.ended is not None:
        rows.append(("took", seconds_text(status.ended - status.received)))
    if status.error is not None:
        rows.append(("error", f"{type(status.error).__name__}: {status.error}"))
    rows += [("slow", straggler) for straggler in status.stragglers]
    if metrics is not None:
        rows += [("memory", f"{metrics.memory_mb} MB"), ("requests", requests_text(metrics.usage))]
    return rows


def _rank_table(metrics: RunMetrics) -> Any:
    columns = ("rank", "by", "init", "s", "load", "compute", "wait", "requests", "MB", "error")
    rows = (
        (
            rank.rank,
            "" if rank.starter is None else rank.starter,
            f"{rank.init_s:.2f}" if rank.init_s else "",
            "" if rank.lived_s is None else f"{rank.lived_s:.2f}",
            f"{rank.load_s:.2f}",
            f"{rank.compute_s:.2f}",
            f"{rank.wait_s:.2f}",
            f"{rank.usage.requests.total():,}",
            f"{rank.peak_rss_bytes / 2**20:.0f}",
            "" if rank.failure is None else _short(str(rank.failure)),
        )
        for rank in metrics.ranks
    )
    return table(
        f"{len(metrics.ranks)} ranks reported (by: rank that started it; init: seconds of a cold function's "
        "init phase; s: lifetime in seconds; MB: peak memory)",
        columns,
        rows,
    )


def _short(text: str) -> str:
    return text if len(text) <= _ERROR_CHARACTERS else f"{text[: _ERROR_CHARACTERS - 1]}…"


def _seconds(age: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", age)
    if match is None:
        raise SettingError(f"--older-than must be a number with a unit of s, m, h or d, such as 90s or 1h, not {age!r}")
    return float(match[1]) * _UNITS[match[2]]
