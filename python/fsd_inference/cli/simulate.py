"""`fsd simulate`: simulate the time and cost of a run on AWS, or the time to launch its workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fsd_inference.cli.completion import networks
from fsd_inference.cli.console import Output, facts, requests_text, table
from fsd_inference.cli.options import (
    HANDED_ON_S,
    Buckets,
    Json,
    Method,
    PricesFile,
    PublishQuota,
    Region,
    TimingFiles,
    examples,
)
from fsd_inference.cli.outputs import check_distinct, check_output
from fsd_inference.errors import SettingError
from fsd_inference.limits import DEEPEST_TREE, DEFAULT_INVOCATION_S, LARGEST_FUNCTION_MB, MB_PER_VCPU
from fsd_inference.units import bytes_text, seconds_text, usd_text

if TYPE_CHECKING:
    from fsd_inference.cost.prices import PriceTable
    from fsd_inference.simulator import SimulatedRun

EXAMPLES = examples(
    "fsd simulate net digits.npz --channel queue --workers 8",
    "fsd simulate net --samples 10000 --channel object --workers 64 --memory 3538 --runs 5",
    "fsd simulate --launch",
)
_LAUNCHES = (8, 16, 32, 64, 128, 256, 512, 1000)
_BRANCHINGS = (2, 4, 8, 16)


def simulate(
    network: Annotated[
        Path | None,
        typer.Argument(
            help="Directory of a network, or of shards written by `fsd partition`.",
            metavar="[NETWORK|DIR]",
            autocompletion=networks,
        ),
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Argument(help="File of typical inputs, to predict the data that workers exchange.", metavar="[INPUT]"),
    ] = None,
    channel: Annotated[
        Literal["queue", "object", "direct", "mpi"],
        typer.Option(
            "--channel",
            help="queue: SNS and SQS. object: S3. direct: Lambda MicroVMs, which send each other frames (modelled "
            "only). mpi: a cluster of servers with its own network.",
        ),
    ] = "queue",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, max=1000, help="Number of workers (P). Default: 1, or the number of shards in DIR."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Number of samples in the run. Default: those of INPUT.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--partition", help="Method that assigns neurons to workers. Default: graph.")
    ] = None,
    memory: Annotated[
        int,
        typer.Option(
            "--memory",
            min=128,
            max=LARGEST_FUNCTION_MB,
            help="Memory of a worker function in MB; 1,769 MB have one vCPU. For direct, baseline memory of a MicroVM: "
            "512, 1024, 2048, 4096 or 8192.",
        ),
    ] = MB_PER_VCPU,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Number of compute threads of each worker.")] = 1,
    branching: Annotated[
        int, typer.Option("--branching", min=1, help="Number of workers that each worker starts.")
    ] = 4,
    micro_batches: Annotated[
        int, typer.Option("--micro-batches", min=1, help="Number of parts that the batch is split into.")
    ] = 1,
    checkpoint_every: Annotated[
        int,
        typer.Option(
            "--checkpoint-every",
            min=0,
            help="Number of layers after which each worker stores its activations, so that other functions go on from "
            f"there if the run takes longer than {DEFAULT_INVOCATION_S:.0f} s. 0: no checkpoints.",
        ),
    ] = 0,
    live: Annotated[
        float,
        typer.Option("--live", min=0, max=1, help="Without INPUT: fraction of samples that keep non-zero activations."),
    ] = 1.0,
    buckets: Buckets = 1,
    timing: TimingFiles = None,
    publish_quota: PublishQuota = None,
    warm: Annotated[
        int,
        typer.Option("--warm", min=0, help="Number of warm function environments, which start without a cold start."),
    ] = 0,
    stragglers: Annotated[
        float, typer.Option("--stragglers", min=0, max=1, help="Fraction of workers with slow processors.")
    ] = 0.0,
    slowdown: Annotated[float, typer.Option("--slowdown", min=1, help="Factor by which stragglers are slower.")] = 3.0,
    runs: Annotated[
        int, typer.Option("--runs", min=1, max=1000, help="Number of runs to simulate, each with its own random draws.")
    ] = 1,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the random draws; equal seeds give equal runs.")
    ] = 0,
    report: Annotated[
        Path | None, typer.Option("--report", help="Directory for the report.json of the first run.")
    ] = None,
    region: Region = "us-east-1",
    prices: PricesFile = None,
    launch: Annotated[
        bool,
        typer.Option(
            "--launch", help="Simulate only the launch of 8 to 1,000 workers, by launch trees and by a single launcher."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Simulate runs on AWS: the engine's state machines under virtual time, with latencies and limits from a file.

    No AWS service is used; prices and latencies come from tables. docs/simulation.md describes the model.
    """
    from fsd_inference.cost.prices import load_prices  # noqa: PLC0415
    from fsd_inference.forecast.timing import load_timing  # noqa: PLC0415

    out = Output(as_json)
    priced = load_prices(region, prices)
    times = load_timing("aws", *(timing or ()), region=priced.region, publish_quota=publish_quota)
    if launch:
        if network is not None or report is not None:
            raise SettingError("--launch takes no network and writes no report: it only simulates the start of workers")
        record, shown = _launches(times, runs if runs > 1 else 11, warm, seed)
        out.result(record, *shown)
        return
    if network is None:
        raise SettingError("give either a network or --launch")
    check_distinct(NETWORK=network, INPUT=batch, report=report)
    if report is not None:
        check_output(report, directory=True, filled=True)
    from fsd_inference.config import RunSettings  # noqa: PLC0415
    from fsd_inference.forecast.partitioned import Partitioned  # noqa: PLC0415
    from fsd_inference.network import load_inputs  # noqa: PLC0415
    from fsd_inference.simulator import Chances, Scenario, simulate, with_seed  # noqa: PLC0415

    with out.progress() as tasks:
        tasks.begin("plan", None)
        planned = Partitioned.load(network, workers, method)
        x = None if batch is None else load_inputs(batch, planned.features)
        if x is not None and planned.network is None:
            raise SettingError(
                f"{network} holds shards, but predicting the exchange from INPUT needs the network itself"
            )
        if x is None and samples is None:
            raise SettingError("give the number of --samples of the run, or an INPUT")
        count = samples or (x.shape[0] if x is not None else 1)
        payloads = planned.payloads(x, count, micro_batches, live)
        settings = RunSettings(
            workers=planned.partition.workers, branching=branching, micro_batches=micro_batches, threads=threads,
            **_handing_on(checkpoint_every, channel),
        )  # fmt: skip
        chances = Chances(seed, warm, stragglers, slowdown)
        scenario = Scenario(
            planned.partition, planned.plan, planned.work, payloads, settings, channel, times, memory, chances,
            buckets=buckets, timeout_s=DEFAULT_INVOCATION_S,
        )  # fmt: skip
        tasks.begin("simulate", runs)
        found = []
        for number in range(runs):
            found.append(simulate(with_seed(scenario, seed + number)))
            tasks.advance("simulate", number + 1)
    if found[0].error is not None:
        raise found[0].error
    record, text = _result(found, priced)
    if report is not None:
        found[0].report().save(report)
    out.result(record, text)


def _handing_on(checkpoint_every: int, channel: str) -> dict[str, Any]:
    """Return the settings of a run with checkpoints, which may outlive its functions; none without checkpoints."""
    from fsd_inference.config import Clocks  # noqa: PLC0415

    if not checkpoint_every:
        return {}
    if channel not in {"queue", "object"}:
        raise SettingError(f"checkpoints are for the functions of queue and object: leave them out with {channel}")
    return {"checkpoint_every": checkpoint_every, "clocks": Clocks(run_s=HANDED_ON_S)}


def _result(found: list[SimulatedRun], prices: PriceTable) -> tuple[dict[str, Any], str]:
    from fsd_inference.cost.model import run_cost  # noqa: PLC0415

    first = found[0]
    walls = sorted(run.wall_s for run in found)
    samples = sum(first.scenario.payloads.samples)
    failed = sum(run.error is not None for run in found)
    cost = None
    if first.scenario.channel != "mpi":
        cost = run_cost(first.usage, first.function_times(), prices, samples=samples, microvms=first.microvm_times())
    ranks = first.report().ranks
    seconds = {
        name: max(getattr(rank, f"{name}_s") for rank in ranks)
        for name in ("load", "compute", "pack", "unpack", "wait", "send")
    }
    record = {
        "channel": first.scenario.channel,
        "workers": len(first.ranks),
        "samples": samples,
        "timing": str(first.scenario.timing),
        "wall_s": first.wall_s,
        "wall_s_of_runs": walls,
        "failed": failed,
        "launch_s": first.launch_s,
        "function_s": sum(rank.ended - rank.begun for rank in (*first.earlier, *first.ranks)),
        "attempts": len(first.starts),
        "checkpoints": sum(len(rank.checkpoints) for rank in (*first.earlier, *first.ranks)),
        **{f"{name}_s": value for name, value in seconds.items()},
        "usage": first.usage.to_json(),
        "cost": None if cost is None else cost.to_json(),
    }
    rows: list[tuple[str, object]] = [
        ("simulated", f"{first.scenario.channel}, P={len(first.ranks)}, {samples:,} samples; {first.scenario.timing}"),
        ("wall time", seconds_text(first.wall_s) + _spread(walls, failed)),
        ("launch", seconds_text(first.launch_s)),
        ("slowest rank", ", ".join(f"{name} {seconds_text(value)}" for name, value in seconds.items())),
        ("exchanged", f"{first.usage.frames:,} frames, {bytes_text(first.usage.wire_bytes)}"),
        ("requests", requests_text(first.usage)),
    ]
    if record["checkpoints"]:
        stored = sum(sum(rank.checkpoints) for rank in (*first.earlier, *first.ranks))
        rows.append(("checkpoints", f"{record['checkpoints']:,}, {bytes_text(stored)}"))
    if len(first.starts) > 1:
        layers = ", ".join(map(str, first.starts[1:]))
        rows.append(
            ("handed on", f"{len(first.starts)} invocations in a row of each function; resumed at layer {layers}")
        )
    if first.usage.retries:
        rows.append(("throttled", f"{first.usage.retries:,} requests were retried"))
    if cost is not None:
        services = ", ".join(f"{name} {usd_text(usd)}" for name, usd in cost.by_service().items() if usd)
        rows += [("cost", f"USD {usd_text(cost.usd)} (prices of {cost.region}, {cost.date})"), ("services", services)]
    return record, facts(rows)


def _spread(walls: list[float], failed: int) -> str:
    if len(walls) == 1:
        return ""
    text = f"; of {len(walls)} runs median {seconds_text(walls[len(walls) // 2])}, slowest {seconds_text(walls[-1])}"
    return f"{text}, {failed} failed" if failed else text


def _launches(times: Any, runs: int, warm: int, seed: int) -> tuple[dict[str, Any], list[Any]]:
    from fsd_inference.forecast.launch import study_launch  # noqa: PLC0415

    found = list(study_launch(times, _LAUNCHES, _BRANCHINGS, runs=runs, warm=warm, seed=seed))
    rows = []
    for count in _LAUNCHES:
        of_count = {one.branching: one for one in found if one.workers == count}
        trees = [of_count[b] if b in of_count and b < count - 1 else None for b in _BRANCHINGS]
        alone = of_count[count - 1]
        best = min((tree.median_s for tree in trees if tree is not None), default=alone.median_s)
        rows.append(
            [f"{count:,}"]
            + ["-" if tree is None else f"{tree.median_s:.2f}" for tree in trees]
            + [f"{alone.median_s:.2f}", f"{alone.median_s / best:.1f} x"]
        )
    columns = ("P", *(f"tree, b={b}" for b in _BRANCHINGS), "single launcher", "single / best tree")
    title = f"Seconds from the start of rank 0 to the start of the last rank, median of {runs} runs; {times}"
    note = (
        f"{warm:,} environments are warm. No tree exceeds the maximum depth on AWS, {DEEPEST_TREE}."
        if all(one.is_allowed for one in found)
        else f"{warm:,} environments are warm. Some trees exceed the maximum depth on AWS, {DEEPEST_TREE}."
    )
    record = {
        "timing": str(times),
        "runs": runs,
        "warm": warm,
        "launches": [
            {
                "workers": one.workers,
                "branching": one.branching,
                "depth": one.depth,
                "median_s": one.median_s,
                "slowest_s": one.slowest_s,
            }
            for one in found
        ],
    }
    return record, [table(title, columns, rows), note]
