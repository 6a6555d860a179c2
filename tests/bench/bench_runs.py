"""Whole runs over each channel, compared with the paper's own code: ``make bench BENCH=runs``.

Workers are local processes. Channels ``queue`` and ``object`` use one emulated AWS without latency, so wall time is
mostly CPU time of the workers and of the emulator. Shards are uploaded before the clock starts.

The authors' figures were measured with their unmodified code, 8 workers and 10,000 inputs, against the same emulator on
another machine (2 cores of a Xeon, no latency). Their numbers of requests and bytes are independent of the machine;
ratios of seconds compare two similar machines, so they are approximate.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.partitioning import METHODS, partition
from tests.bench.cases import Case, graph_challenge_case, random_case
from tests.support.runs import same, session

CHANNELS = ("local", "queue", "object")


@dataclass(frozen=True)
class Authors:
    """Measurements of the authors' code; pairs are (minimum, maximum)."""

    wall_s: tuple[float, float]
    cpu_s: tuple[float, float]
    requests: int
    bytes_mb: float
    rss_mb: float


AUTHORS = {
    # 1,102 PublishBatch, 1,030 receives, 1,030 deletes, 1,990 DynamoDB queries
    "queue": Authors((117, 129), (129, 154), 1_102 + 1_030 + 1_030 + 1_990, 104.0, 122),
    # 6,452 PUT, 6,450 GET, 1,500 LIST
    "object": Authors((125, 128), (175, 189), 6_452 + 6_450 + 1_500, 240.7, 161),
}


@dataclass(frozen=True)
class Run:
    """One run over one channel."""

    report: fsd.RunReport
    identical: bool
    cpu_s: float

    @property
    def wait_ms(self) -> float:
        """Median milliseconds that a rank waits for the inputs of a layer, over ranks and layers."""
        waits = [layer.wait_s for rank in self.report.ranks for layer in rank.layers[1:]]
        return 1e3 * statistics.median(waits) if waits else 0.0


def children_s() -> float:
    """Return the CPU seconds (user and system) of all descendants of this process that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_all(case: Case, workers: int, method: str, stack: Path) -> tuple[fsd.RunReport, dict[str, Run]]:
    """Run a case serially and over every channel."""
    with fsd.Session(case.network) as alone:
        serial = alone.infer(case.x)
    runs = {}
    with tempfile.TemporaryDirectory() as folder:
        partition(case.network, Path(folder, "shards"), workers=workers, method=method)
        for channel in CHANNELS:
            before = children_s()  # the emulator is still running, so the difference is that of the workers
            with session(Path(folder, "shards"), channel, stack) as distributed:
                distributed.prepare()
                answer = distributed.infer(case.x)
            cpu_s = children_s() - before  # the session has waited for their parent, the fork server
            runs[channel] = Run(answer.report, same(answer.outputs, serial.outputs), cpu_s)
    return serial.report, runs


Figure = Callable[[Run], str]
FIGURES: dict[str, Figure] = {
    "identical to serial": lambda run: "yes" if run.identical else "NO",
    "wall_s": lambda run: f"{run.report.wall_s:.2f}",
    "launch_s": lambda run: f"{run.report.launch_s:.2f}",
    "compute_s (slowest rank)": lambda run: f"{run.report.compute_s:.2f}",
    "wait a layer, ms (median)": lambda run: f"{run.wait_ms:.1f}",
    "CPU of the workers, s": lambda run: f"{run.cpu_s:.1f}",
    "peak RSS of a worker, MB": lambda run: f"{run.report.peak_rss_bytes / 1e6:.0f}",
    "row_sends": lambda run: f"{run.report.row_sends:,}",
    "frames": lambda run: f"{run.report.usage.frames:,}",
    "wire_bytes, MB": lambda run: f"{run.report.usage.wire_bytes / 1e6:.2f}",
    "body_bytes, MB": lambda run: f"{run.report.usage.body_bytes / 1e6:.2f}",
    "received_bytes, MB": lambda run: f"{run.report.usage.received_bytes / 1e6:.2f}",
    "requests": lambda run: f"{run.report.usage.requests.total():,}",
    "  by kind": lambda run: "\n".join(f"{kind} {n:,}" for kind, n in sorted(run.report.usage.requests.items())),
    "empty polls": lambda run: f"{run.report.usage.empty_polls:,}",
    "misses": lambda run: f"{run.report.usage.misses:,}",
    "retries": lambda run: f"{run.report.usage.retries:,}",
}


def figures_table(runs: dict[str, Run]) -> Table:
    """Return a table with one column for each channel."""
    table = Table("", *runs)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figure in FIGURES.items():
        table.add_row(name, *(figure(run) for run in runs.values()))
    return table


def authors_table(runs: dict[str, Run]) -> Table:
    """Return a table of ratios: the authors' measurements divided by ours."""
    table = Table(title="The authors' code, measured on another machine of this kind (2 cores, Xeon, no latency)")
    for column in ("", *(f"{channel}: {what}" for channel in AUTHORS for what in ("theirs", "here", "ratio"))):
        table.add_column(column, justify="right" if column else "left")
    rows: dict[str, list[str]] = {}
    for channel, theirs in AUTHORS.items():
        run = runs[channel]
        usage = run.report.usage
        compared: dict[str, tuple[tuple[float, float], float]] = {
            "wall_s": (theirs.wall_s, run.report.wall_s),
            "CPU of the workers, s": (theirs.cpu_s, run.cpu_s),
            "requests": ((theirs.requests,) * 2, usage.requests.total()),
            "MB, as sent": ((theirs.bytes_mb,) * 2, usage.body_bytes / 1e6),
            "peak RSS of a worker, MB": ((theirs.rss_mb,) * 2, run.report.peak_rss_bytes / 1e6),
        }
        for name, ((least, most), here) in compared.items():
            span = f"{least:,g}" if least == most else f"{least:,g}-{most:,g}"
            ratio = f"{least / here:.1f}" if least == most else f"{least / here:.1f}-{most / here:.1f}"
            rows.setdefault(name, [name]).extend(
                [span, f"{here:,.0f}" if here >= 1000 else f"{here:.3g}", f"{ratio} x"]
            )
    for row in rows.values():
        table.add_row(*row)
    return table


def main() -> None:
    """Run both networks over every channel and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000, help="samples for the Graph Challenge network")
    parser.add_argument("--layers", type=int, default=120, help="layers of the Graph Challenge network")
    parser.add_argument("--random-samples", type=int, default=1_000)
    parser.add_argument("--random-layers", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--partition", default="hypergraph", choices=METHODS)
    options = parser.parse_args()
    console = Console(width=130, emoji=False)
    settings = StackSettings("fsd-bench", ranks=options.workers, purge_settle_s=0.0)
    with tempfile.TemporaryDirectory() as folder, temporary_stack(settings) as made:
        stack = Path(folder, "stack.json")
        save_stack(made, stack)
        for make, layers, samples in (
            (graph_challenge_case, options.layers, options.samples),
            (random_case, options.random_layers, options.random_samples),
        ):
            case = make(layers, samples)
            serial, runs = run_all(case, options.workers, options.partition, stack)
            console.rule(case.name)
            console.print(
                f"{options.workers} workers, partition {options.partition}, kernels {serial.simd}, {os.cpu_count()} "
                f"cores with a load of {os.getloadavg()[0]:.1f} over the last minute; serial, one thread: "
                f"{serial.wall_s:.2f} s"
            )
            console.print(figures_table(runs))
            if (make, layers, samples, options.workers) == (graph_challenge_case, 120, 10_000, 8):
                console.print(authors_table(runs))


if __name__ == "__main__":
    main()
