"""Counts predicted before each run, beside what the run counted: ``make bench BENCH=predictions``.

For each network, number of workers, channel and number of micro-batches: requests, bytes and cost are predicted from
the plan and a sample of the inputs alone, then the run is made against one emulated AWS, and both are printed. What
timing makes of receiving is taken from the defaults of `Habits`; ``--fit`` fits them first, on other networks.

Wanted: requests within 10%, bytes within 25%. Cost is that of the services, Lambda's time left out (a time model's).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.config import RunSettings
from fsd_inference.cost.habits import HabitRun, Habits, fit_habits
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.cost.volumes import predict_object, predict_queue
from fsd_inference.partition import ExchangePlan, cut, load_plan
from fsd_inference.records import Usage
from fsd_inference.session.sampling import sample_payloads
from tests.bench.cases import Case, graph_challenge_case
from tests.support.runs import session

CHANNELS = ("queue", "object")
WANTED = {"requests": 0.10, "bytes": 0.25}


@dataclass(frozen=True)
class Prepared:
    """A case cut for some workers."""

    case: Case
    shards: Path
    workers: int
    micro_batches: int
    plan: ExchangePlan


def random_case(neurons: int, layers: int, samples: int, seed: int) -> Case:
    """Distinct random rows, dense random inputs: nothing dies, nothing repeats."""
    network = fsd.random_network([neurons] * (layers + 1), 16, seed=seed)
    x = sparse.csr_array(np.random.default_rng(seed).standard_normal((samples, neurons), np.float32))
    return Case(f"random {neurons} x {layers}, {samples:,} samples", network, x)


def radix_case(layers: int, samples: int) -> Case:
    """The Graph Challenge's network of 1024 neurons."""
    case = graph_challenge_case(layers, samples)
    return Case(f"RadiX-Net 1024 x {layers}, {samples:,} samples", case.network, case.x)


def prepared(
    cases: Iterable[Case], workers: Iterable[int], micro_batches: Iterable[int], method: str
) -> Iterator[Prepared]:
    """Cut each case for each number of workers."""
    for case in cases:
        for count in workers:
            with tempfile.TemporaryDirectory() as folder:
                cut(case.network, Path(folder, "shards"), workers=count, method=method)
                _, plan = load_plan(Path(folder, "shards"))
                for parts in micro_batches:
                    yield Prepared(case, Path(folder, "shards"), count, parts, plan)


def run(it: Prepared, channel: str, stack: Path) -> fsd.RunReport:
    """Make one run, shards uploaded before."""
    with session(it.shards, channel, stack, micro_batches=it.micro_batches) as distributed:
        distributed.prepare()
        return distributed.infer(it.case.x).report


def predict(it: Prepared, channel: str, ranks: int, habits: Habits, most_samples: int) -> Usage:
    """Predict one run, from the plan and a sample of the inputs."""
    samples = it.case.x.shape[0]
    (payloads,) = sample_payloads(
        it.case.network,
        [it.plan],
        it.case.x,
        samples=samples,
        micro_batches=it.micro_batches,
        most_samples=most_samples,
    )
    settings = RunSettings(workers=it.workers, micro_batches=it.micro_batches)
    if channel == "queue":
        return predict_queue(it.plan, payloads, settings, lane_ranks=ranks, habits=habits)
    return predict_object(it.plan, payloads, settings, habits=habits)


def error(predicted: float, counted: float) -> str:
    """Return by how much a prediction is off."""
    return f"{predicted / counted - 1:+.1%}"


def main() -> None:
    """Fit, predict, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=2_000, help="of the RadiX-Net runs that are compared")
    parser.add_argument("--most-samples", type=int, default=1_000, help="that are drawn of them to predict from")
    parser.add_argument("--layers", type=int, default=120, help="of the RadiX-Net that is compared")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--partition", default="graph")
    parser.add_argument("--fit", action="store_true", help="fit what timing makes of receiving first, on other runs")
    options = parser.parse_args()
    console, ranks = Console(width=150), max(6, *options.workers)
    table = Table("run", "P", "channel", "M")
    for column in ("requests", "counted", "off", "MB", "counted", "off", "services, USD", "counted", "off"):
        table.add_column(column, justify="right")
    worst = dict.fromkeys(WANTED, 0.0)
    prices, kinds = load_prices(), []
    settings = StackSettings("fsd-bench", ranks=ranks, purge_settle_s=0.0)
    with tempfile.TemporaryDirectory() as folder, temporary_stack(settings) as made:
        stack = Path(folder, "stack.json")
        save_stack(made, stack)
        habits = Habits()
        if options.fit:
            others = (radix_case(40, 400), random_case(256, 30, 300, seed=3))
            learnt = prepared(others, (2, 3, 6), (1, 4), options.partition)
            habits = fit_habits(
                [HabitRun(run(it, channel, stack), it.plan, it.micro_batches) for it in learnt for channel in CHANNELS]
            )
        console.print(habits)
        cases = (radix_case(options.layers, options.samples), random_case(512, 40, 400, seed=0))
        for it in prepared(cases, options.workers, options.micro_batches, options.partition):
            for channel in CHANNELS:
                foreseen = predict(it, channel, ranks, habits, min(options.most_samples, it.case.x.shape[0] // 2))
                report = run(it, channel, stack)
                counted = report.usage
                pairs = {
                    "requests": (foreseen.requests.total(), counted.requests.total()),
                    "bytes": (foreseen.received_bytes, counted.received_bytes),
                }
                for name, (one, other) in pairs.items():
                    worst[name] = max(worst[name], abs(one / other - 1))
                usd = [run_cost(usage, [], prices, samples=report.samples).usd for usage in (foreseen, counted)]
                table.add_row(
                    it.case.name,
                    str(it.workers),
                    channel,
                    str(it.micro_batches),
                    *(f"{count:,}" for count in pairs["requests"]),
                    error(*pairs["requests"]),
                    *(f"{size / 1e6:.3f}" for size in pairs["bytes"]),
                    error(*pairs["bytes"]),
                    *(f"{cost:.6f}" for cost in usd),
                    error(usd[0], usd[1]),
                )
                off = {
                    kind: (foreseen.requests[kind], counted.requests[kind])
                    for kind in sorted(foreseen.requests | counted.requests)
                    if foreseen.requests[kind] != counted.requests[kind]
                }
                kinds.append(f"{it.case.name}, P={it.workers}, {channel}, M={it.micro_batches}: {off}")
                console.print(f"{kinds[-1]}, {report.wall_s:.1f} s, of which launch {report.launch_s:.1f}")
    console.print(table)
    console.print(
        f"largest errors: requests {worst['requests']:.1%} (wanted {WANTED['requests']:.0%}), "
        f"bytes {worst['bytes']:.1%} (wanted {WANTED['bytes']:.0%}); {prices}; {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
