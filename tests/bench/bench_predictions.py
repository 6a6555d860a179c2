"""Accuracy of predictions made before runs, compared with measurements: ``make bench BENCH=predictions``.

Runs use local processes and one emulated AWS, with each frame delayed by 60 ms or more to imitate latency. For each
network, number of workers, channel and number of micro-batches, the prediction is made before the run, from the plan
and half of the inputs: requests, bytes and cost in closed form (`forecast.counts`), and requests and wall time by the
tests' simulation of a host (`tests.support.one_by_one`). All ranks, the emulator and other programs share the host's
cores; the number of other busy programs is measured during the run, and is the simulation's only input from it.

The times of startup, requests and messages on this host, and the receive model (`ReceiveModel`), are fitted beforehand,
to other networks and numbers of workers than those compared. Cost is that of the services, without Lambda's time.

Targets: requests within 10%, bytes within 25%, wall time within 15%.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Self

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.config import RunSettings
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.partitioned import Partitioned
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.receive_model import ReceiveModel
from fsd_inference.forecast.timing import Timing, load_timing
from fsd_inference.forecast.work import rank_work
from fsd_inference.partitioning import load_plan, partition
from fsd_inference.simulator import Scenario, SimulatedRun, with_seed
from fsd_inference.usage import Usage
from tests.bench.cases import Case, graph_challenge_case
from tests.support.one_by_one import Host, simulate_one_by_one
from tests.support.one_by_one.fitting import ObservedRun, fit_host, fit_receive_model, with_fitted
from tests.support.runs import session

CHANNELS = ("queue", "object")
WANTED = {"requests": 0.10, "simulated requests": 0.10, "bytes": 0.25, "wall time": 0.15}
RANKS = 8  # number of queues of the lane
_DRAWS = 5  # number of simulated runs, of which the median is used
_LOOK_S = 0.2


@dataclass(frozen=True)
class Prepared:
    """A case partitioned for some workers, with the payloads of its edges, predicted from half of its inputs."""

    case: Case
    shards: Path
    planned: Partitioned
    payloads: Payloads
    settings: RunSettings

    def __str__(self) -> str:
        return f"{self.case.name}, P={self.settings.workers}, M={self.settings.micro_batches}"

    def count(self, channel: str, receiving: ReceiveModel) -> Usage:
        """Predict the run's counts in closed form."""
        if channel == "queue":
            return count_usage(
                self.planned.plan, self.payloads, self.settings, "queue", purged=RANKS, receiving=receiving
            )
        return count_usage(self.planned.plan, self.payloads, self.settings, "object", receiving=receiving)

    def scenario(self, channel: str, timing: Timing) -> Scenario:
        """Return the scenario of the run."""
        it = self.planned
        return Scenario(it.partition, it.plan, it.work, self.payloads, self.settings, channel, timing, purged=RANKS)

    def run(self, channel: str, stack: Path, delay_s: float) -> fsd.RunReport:
        """Execute the run, with shards uploaded beforehand."""
        parts = self.settings.micro_batches
        with session(self.shards, channel, stack, micro_batches=parts, delay_s=delay_s) as distributed:
            distributed.prepare()
            return distributed.infer(self.case.x).report


def random_case(widths: Sequence[int], connections: int, samples: int, name: str, seed: int) -> Case:
    """Return a case with distinct random rows and dense random inputs: no sample dies and no rows repeat."""
    network = fsd.random_network(widths, connections, seed=seed)
    x = sparse.csr_array(np.random.default_rng(seed).standard_normal((samples, widths[0]), np.float32))
    return Case(f"random {name} x {len(network)}, {samples:,}", network, x)


def radix_case(layers: int, samples: int) -> Case:
    """Return a case of the Graph Challenge's network of 1024 neurons."""
    case = graph_challenge_case(layers, samples)
    return Case(f"RadiX-Net 1024 x {layers}, {samples:,}", case.network, case.x)


def fitting_cases() -> list[tuple[Case, tuple[int, ...]]]:
    """Return the cases used for fitting, with their numbers of workers."""
    return [
        (radix_case(24, 400), (3,)),
        (random_case([256] * 21, 16, 300, "256", seed=3), (6,)),
        (random_case([384] * 25, 12, 500, "384", seed=7), (2, 7)),
    ]


def compared_cases() -> dict[str, tuple[Case, tuple[int, ...]]]:
    """Return the cases to compare, with their numbers of workers; the last is unlike any case used for fitting."""
    rng = np.random.default_rng(5)
    odd = rng.integers(201, 801, 26).tolist()
    return {
        "radix": (radix_case(30, 1_000), (2, 4, 8)),
        "random": (random_case([512] * 21, 16, 400, "512", seed=0), (2, 4, 8)),
        "odd": (random_case(odd, 7, 350, "201 to 800", seed=5), (5,)),
    }


def prepared(case: Case, workers: Iterable[int]) -> Iterator[Prepared]:
    """Yield a case, partitioned for each number of workers."""
    for count in workers:
        with tempfile.TemporaryDirectory() as folder:
            shards = Path(folder, "shards")
            partition(case.network, shards, workers=count, method="graph")
            owners, plan = load_plan(shards)
            work = rank_work(case.network, owners)
            planned = Partitioned(owners, plan, work, case.network.widths[0], case.network)
            for parts in (1, 4):
                samples = case.x.shape[0]
                payloads = planned.payloads(case.x[: samples // 2], samples, parts)
                yield Prepared(case, shards, planned, payloads, RunSettings(workers=count, micro_batches=parts))


class Others:
    """A sampler of the number of other programs that compete for this host's cores during a `with` block.

    Attributes
    ----------
    mean : float
        Mean number of competing programs; valid after the block.
    """

    def __init__(self) -> None:
        self.mean = 0.0
        self._counts: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.mean = fmean(self._counts)

    def _look(self) -> None:
        while not self._counts or not self._over.wait(_LOOK_S):
            self._counts.append(_competing())


def _competing() -> int:
    """Return the number of competitors for the cores, excluding this process and its descendants.

    Linux divides cores between sessions (autogroup), not threads; a session counts once for each core that it can use.
    """
    parents: dict[int, int] = {}
    wanting: list[tuple[int, str]] = []
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        try:
            state, parent, _, session, *_ = stat.read_text("ascii", "replace").rpartition(")")[2].split(maxsplit=4)
        except (OSError, ValueError):  # the thread has ended
            continue
        process = int(stat.parts[2])
        parents[process] = int(parent)
        if state == "R":
            wanting.append((process, session))
    sessions: Counter[str] = Counter()
    for process, session in wanting:
        above = process
        while above not in {0, os.getpid()}:
            above = parents.get(above, 0)
        sessions[session] += not above
    cores = os.cpu_count() or 1
    return sum(min(threads, cores) for threads in sessions.values())


@contextmanager
def emulated_stack() -> Iterator[Path]:
    """Start an emulated AWS and warm it up with one run, for a `with` block; yield the path of its stack.json."""
    settings = StackSettings("fsd-bench", ranks=RANKS, purge_settle_s=0.0)
    with tempfile.TemporaryDirectory() as folder, temporary_stack(settings) as made:
        stack = Path(folder, "stack.json")
        save_stack(made, stack)
        for it in prepared(random_case([64] * 4, 8, 20, "64", seed=1), (2,)):
            for channel in CHANNELS:
                it.run(channel, stack, 0.0)
        yield stack


def fit(console: Console, stack: Path, base: Timing, host: Host) -> tuple[Timing, Host, ReceiveModel]:
    """Fit the host's timing and the receive model to runs that are not compared."""
    observed, learnt = [], []
    for case, workers in fitting_cases():
        for it in prepared(case, workers):
            for channel in CHANNELS:
                with Others() as others:
                    report = it.run(channel, stack, host.delay_s)
                observed.append((it.scenario(channel, base), replace(host, others=others.mean), report))
                learnt.append(ObservedRun(report, it.planned.plan, it.settings.micro_batches))
                console.print(f"fit: {it}, {channel}: {report.wall_s:.1f} s; other programs {others.mean:.1f}")
    values, receiving = fit_host(observed), fit_receive_model(learnt)
    console.print({name: round(each.value, 6) for name, each in values.items()}, receiving)
    scenario, fitted = with_fitted(observed[0][0], host, values)
    return scenario.timing, fitted, receiving


def median_run(scenario: Scenario, host: Host) -> SimulatedRun:
    """Return the simulated run with the median wall time of several seeds."""
    found = [simulate_one_by_one(with_seed(scenario, seed), host) for seed in range(_DRAWS)]
    if any(run.error is not None for run in found):
        raise SystemExit(f"a simulated run fails: {next(run.error for run in found if run.error is not None)}")
    return sorted(found, key=lambda run: run.wall_s)[_DRAWS // 2]


@dataclass(frozen=True)
class Compared:
    """The predictions of a run, and the reports of its repetitions.

    Attributes
    ----------
    it : Prepared
        Partitioned case and settings.
    channel : str
        Name of the channel.
    counts : Usage
        Requests and bytes predicted in closed form.
    simulated : SimulatedRun
        Simulated run with the median wall time.
    reports : list of RunReport
        Reports of the repetitions.
    others : float
        Mean number of competing programs during them.
    """

    it: Prepared
    channel: str
    counts: Usage
    simulated: SimulatedRun
    reports: list[fsd.RunReport]
    others: float

    def requests(self) -> list[int]:
        """Return the number of requests of each run."""
        return [report.usage.requests.total() for report in self.reports]

    def walls(self) -> list[float]:
        """Return the wall time of each run in seconds."""
        return [report.wall_s for report in self.reports]

    def pairs(self) -> dict[str, tuple[float, float]]:
        """Return (predicted, mean measured) values by the names of `WANTED`."""
        requests, received = fmean(self.requests()), fmean(report.usage.received_bytes for report in self.reports)
        return {
            "requests": (self.counts.requests.total(), requests),
            "simulated requests": (self.simulated.usage.requests.total(), requests),
            "bytes": (self.counts.received_bytes, received),
            "wall time": (self.simulated.wall_s, fmean(self.walls())),
        }

    def row(self) -> list[str]:
        """Return a row of the table."""
        prices, samples = load_prices(), self.it.case.x.shape[0]
        usd = [run_cost(usage, [], prices, samples=samples).usd for usage in (self.counts, *self._usages())]
        predicted_usd, usd_of_counts = usd[0], fmean(usd[1:])
        pairs = self.pairs()
        off = {name: one / other - 1 for name, (one, other) in pairs.items()}
        return [
            self.it.case.name,
            str(self.it.settings.workers),
            self.channel,
            str(self.it.settings.micro_batches),
            f"{pairs['requests'][0]:,.0f}",
            f"{pairs['simulated requests'][0]:,.0f}",
            f"{pairs['requests'][1]:,.0f}",
            f"{off['requests']:+.1%}",
            f"{off['simulated requests']:+.1%}",
            *(f"{size / 1e6:.3f}" for size in pairs["bytes"]),
            f"{off['bytes']:+.1%}",
            f"{predicted_usd:.6f}",
            f"{usd_of_counts:.6f}",
            f"{predicted_usd / usd_of_counts - 1:+.1%}",
            *(f"{seconds:.1f}" for seconds in pairs["wall time"]),
            f"{off['wall time']:+.0%}",
            f"{self.others:.1f}",
        ]

    def _usages(self) -> list[Usage]:
        return [report.usage for report in self.reports]


def compare(
    stack: Path,
    cases: Iterable[tuple[Case, tuple[int, ...]]],
    timing: Timing,
    host: Host,
    receiving: ReceiveModel,
    runs: int,
) -> Iterator[Compared]:
    """Predict each run, then execute it several times."""
    for case, workers in cases:
        for it in prepared(case, workers):
            for channel in CHANNELS:
                counts = it.count(channel, receiving)
                with Others() as others:
                    reports = [it.run(channel, stack, host.delay_s) for _ in range(runs)]
                simulated = median_run(it.scenario(channel, timing), replace(host, others=others.mean))
                yield Compared(it, channel, counts, simulated, reports, others.mean)


def print_all(console: Console, compared: Iterable[Compared]) -> None:
    """Print a row after each run, then the table and the errors."""
    table = Table("run", "P", "channel", "M")
    for column in ("requests", "simulated", "counted", "off", "off", "MB", "counted", "off", "USD", "counted", "off"):
        table.add_column(column, justify="right")
    for column in ("wall, s", "measured", "off", "others"):
        table.add_column(column, justify="right")
    found: list[Compared] = []
    for each in compared:
        found.append(each)
        table.add_row(*each.row())
        console.print(" | ".join(each.row()))
    console.print(table)
    for name, wanted in WANTED.items():
        sizes = [abs(one / other - 1) for one, other in (each.pairs()[name] for each in found)]
        console.print(
            f"{name}: off by {statistics.median(sizes):.1%} in the median, {max(sizes):.1%} at most; "
            f"{sum(size <= wanted for size in sizes)} of {len(sizes)} runs within {wanted:.0%}"
        )
    if any(len(each.reports) > 1 for each in found):
        for name, repeated in (
            ("requests", [each.requests() for each in found]),
            ("wall time", [each.walls() for each in found]),
        ):
            spread = [max(values) / min(values) - 1 for values in repeated]
            console.print(
                f"{name} of a run that is repeated: the most is {statistics.median(spread):.1%} above the least in the "
                f"median, {max(spread):.1%} at most"
            )
    console.print(f"{load_prices()}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


def main() -> None:
    """Fit timing, predict runs, execute them, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--delay-ms", type=float, default=60.0)
    parser.add_argument("--networks", nargs="+", choices=("radix", "random", "odd"), default=["radix", "random", "odd"])
    parser.add_argument("--runs", type=int, default=1, help="repetitions of each run, whose mean is compared")
    options = parser.parse_args()
    console, delay_s = Console(width=220, emoji=False), options.delay_ms / 1e3
    host = Host(os.cpu_count() or 1, delay_s=delay_s)
    with emulated_stack() as stack:
        timing, host, receiving = fit(console, stack, load_timing("emulator"), host)
        cases = compared_cases()
        chosen = [cases[name] for name in options.networks]
        print_all(console, compare(stack, chosen, timing, host, receiving, options.runs))


if __name__ == "__main__":
    main()
