"""Simulated wall times beside measured ones: ``make bench BENCH=simulation``.

Runs of local processes against one emulated AWS, each frame held back by a delay (60 ms or more), as latency would. The
host's cores are modelled as shared by all ranks and the emulator. What starting, requests and messages take here is
fitted first, on runs of other networks and numbers of workers than those that are compared.

Wanted: predicted wall time within 15% of the measured. With --large, instead: how long 1,000 workers x 120 layers take
to simulate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
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
from fsd_inference.cost.fitting import fit_host
from fsd_inference.cost.simulator import Scenario, SimulatedRun, simulate, with_seed
from fsd_inference.cost.timing import Sourced, Timing, load_timing
from fsd_inference.cost.work import dense_payloads
from fsd_inference.partition import cut, exchange_plan, load_plan, partition_network
from fsd_inference.session.simulating import Planned
from fsd_inference.session.work import rank_work
from tests.bench.cases import Case, graph_challenge_case
from tests.support.runs import session

CHANNELS = ("queue", "object")
WANTED = 0.15
CONNECTIONS = 32


@dataclass(frozen=True)
class Prepared:
    """A case cut for some workers."""

    case: Case
    shards: Path
    planned: Planned
    micro_batches: int

    @property
    def workers(self) -> int:
        """P."""
        return self.planned.partition.workers

    def scenario(self, channel: str, timing: Timing, delay_s: float) -> Scenario:
        """Return the run to simulate, from half of the inputs."""
        x = self.case.x
        payloads = self.planned.payloads(x[: x.shape[0] // 2], x.shape[0], self.micro_batches)
        settings = RunSettings(workers=self.workers, micro_batches=self.micro_batches)
        return self.planned.scenario(payloads, settings, channel, timing, memory_mb=None, delay_s=delay_s)

    def run(self, channel: str, stack: Path, delay_s: float) -> fsd.RunReport:
        """Make the run, shards uploaded before."""
        with session(self.shards, channel, stack, micro_batches=self.micro_batches, delay_s=delay_s) as distributed:
            distributed.prepare()
            return distributed.infer(self.case.x).report


def random_case(neurons: int, layers: int, samples: int, seed: int) -> Case:
    """Distinct random rows, dense random inputs: nothing dies, nothing repeats."""
    network = fsd.random_network([neurons] * (layers + 1), 16, seed=seed)
    x = sparse.csr_array(np.random.default_rng(seed).standard_normal((samples, neurons), np.float32))
    return Case(f"random {neurons} x {layers}, {samples:,}", network, x)


def radix_case(layers: int, samples: int) -> Case:
    """The Graph Challenge's network of 1024 neurons."""
    case = graph_challenge_case(layers, samples)
    return Case(f"RadiX-Net 1024 x {layers}, {samples:,}", case.network, case.x)


def prepared(cases: Iterable[Case], workers: Iterable[int], micro_batches: Iterable[int]) -> Iterator[Prepared]:
    """Cut each case for each number of workers."""
    for case in cases:
        for count in workers:
            with tempfile.TemporaryDirectory() as folder:
                shards = Path(folder, "shards")
                cut(case.network, shards, workers=count, method="graph")
                partition, plan = load_plan(shards)
                work = rank_work(case.network, partition)
                planned = Planned(partition, plan, work, case.network.widths[0], case.network)
                for parts in micro_batches:
                    yield Prepared(case, shards, planned, parts)


def median_run(scenario: Scenario, runs: int = 5) -> SimulatedRun:
    """Return the run of median wall time, of several draws."""
    found = [simulate(with_seed(scenario, seed)) for seed in range(runs)]
    if any(run.error is not None for run in found):
        raise SystemExit(f"a simulated run fails: {next(run.error for run in found if run.error is not None)}")
    return sorted(found, key=lambda run: run.wall_s)[runs // 2]


def near_network(neurons: int, layers: int) -> fsd.Network:
    """Random weights; a neuron's inputs are among its neighbours, so that ranks hear some dozens of others."""
    rng, reach = np.random.default_rng(1), 256
    near = np.clip(np.arange(neurons) - reach, 0, neurons - 2 * reach)
    picks = rng.random((neurons, 2 * reach), np.float32).argpartition(CONNECTIONS, axis=1)[:, :CONNECTIONS]
    columns = (np.sort(picks, axis=1) + near[:, None]).reshape(-1)
    ends = np.arange(0, neurons * CONNECTIONS + 1, CONNECTIONS)
    weights = sparse.csr_array((rng.standard_normal(columns.size, np.float32), columns, ends), shape=(neurons, neurons))
    layer = fsd.Layer(weights, 0.0)
    return fsd.Network([layer] * layers)


def large(console: Console, neurons: int, layers: int = 120, workers: int = 1000) -> None:
    """Simulate 1,000 workers."""
    network = near_network(neurons, layers)
    began = time.process_time()
    partition = partition_network(network, workers, "block")
    plan = exchange_plan(network, partition)
    work = rank_work(network, partition)
    edges = sum(len(edge.targets) for exchange in plan.exchanges for edge in exchange)
    planned_s = time.process_time() - began
    console.print(
        f"neighbours, {neurons} x {layers}, P={workers}, block: {edges:,} edges; planned in {planned_s:.0f} s"
    )
    payloads = dense_payloads(plan, samples=1000, live=0.03)
    for channel in CHANNELS:
        it = Scenario(partition, plan, work, payloads, RunSettings(workers=workers), channel, load_timing())
        began, wall = time.process_time(), time.perf_counter()
        found = simulate(it)
        console.print(
            f"{channel}: simulated in {time.process_time() - began:.1f} s of one core "
            f"({time.perf_counter() - wall:.1f} s by the clock): {found.wall_s:.1f} s, error: {found.error}, "
            f"{sum(found.usage.requests.values()):,} requests, {found.usage.retries:,} of them repeats"
        )


def main() -> None:
    """Fit, simulate, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--delay-ms", type=float, default=60.0)
    parser.add_argument("--layers", type=int, default=40, help="of the RadiX-Net that is compared")
    parser.add_argument("--samples", type=int, default=1_000, help="of the RadiX-Net runs that are compared")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--large", action="store_true", help="instead: 1,000 workers")
    parser.add_argument("--neurons", type=int, default=16384, help="of --large")
    options = parser.parse_args()
    console = Console(width=140)
    if options.large:
        large(console, options.neurons)
        return
    delay_s, cores = options.delay_ms / 1e3, os.cpu_count() or 1
    base = load_timing("emulator").with_values("this host", {"host.cores": Sourced(cores, "os.cpu_count")})
    table = Table("run", "P", "channel", "M", "simulated, s", "measured, s", "off", "launch", "measured", "load")
    errors: list[float] = []
    ranks = max(6, *options.workers)
    settings = StackSettings("fsd-bench", ranks=ranks, purge_settle_s=0.0)
    with tempfile.TemporaryDirectory() as folder, temporary_stack(settings) as made:
        stack = Path(folder, "stack.json")
        save_stack(made, stack)
        observed = []
        for it in prepared((radix_case(24, 400), random_case(256, 20, 300, seed=3)), (3, 6), (1, 4)):
            for channel in CHANNELS:
                report = it.run(channel, stack, delay_s)
                observed.append((it.scenario(channel, base, delay_s), report))
                console.print(
                    f"fit: {it.case.name}, P={it.workers}, {channel}, M={it.micro_batches}: {report.wall_s:.1f} s, "
                    f"launch {report.launch_s:.1f} s, load {os.getloadavg()[0]:.1f}"
                )
        timing = base.with_values("this host", fit_host(observed))
        fitted = {name: round(timing[name], 5) for name in timing.values if timing[name] != base[name]}
        console.print(f"fitted on other runs: {fitted}")
        cases = (radix_case(options.layers, options.samples), random_case(512, 30, 400, seed=0))
        for it in prepared(cases, options.workers, options.micro_batches):
            for channel in CHANNELS:
                foreseen = median_run(it.scenario(channel, timing, delay_s))
                report = it.run(channel, stack, delay_s)
                errors.append(foreseen.wall_s / report.wall_s - 1)
                row = (
                    it.case.name,
                    str(it.workers),
                    channel,
                    str(it.micro_batches),
                    f"{foreseen.wall_s:.1f}",
                    f"{report.wall_s:.1f}",
                    f"{errors[-1]:+.0%}",
                    f"{foreseen.launch_s:.1f}",
                    f"{report.launch_s:.1f}",
                    f"{os.getloadavg()[0]:.1f}",
                )
                table.add_row(*row)
                console.print("  ".join(row))
    console.print(table)
    off = [abs(error) for error in errors]
    console.print(
        f"wall time off by {statistics.median(off):.0%} in the median, {max(off):.0%} at most; "
        f"{sum(error <= WANTED for error in off)} of {len(off)} runs within {WANTED:.0%}; delay "
        f"{options.delay_ms:g} ms, {cores} cores"
    )


if __name__ == "__main__":
    main()
