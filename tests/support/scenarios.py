"""Small scenarios for the simulator, and timing that is simple enough to compute results by hand."""

from __future__ import annotations

import numpy as np

from fsd_inference.config import RunSettings
from fsd_inference.forecast.payloads import Payloads, dense_payloads
from fsd_inference.forecast.timing import LATENCIES, RATE, UNITS, Sourced, Timing
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import Edge, ExchangePlan, Partition
from fsd_inference.simulator import Scenario

NOTHING = {"s": 0.0, "count": 0.0, "bytes/s": 1e30, "1/s": 1e15, RATE: 1.0, "factor": 1.0}


def timing(**values: float) -> Timing:
    """Return timing in which only the given values take time (two underscores for a dot); kernels do 1 GEdge/s."""
    found = {name: Sourced(NOTHING[unit], "a test") for name, unit in UNITS.items()}
    found["environments.burst"] = Sourced(1e15, "a test")
    found["microvms.burst"] = Sourced(1e15, "a test")
    found["throttle.burst_s"] = Sourced(1.0, "a test")
    found["kernel.1.1"] = Sourced(1.0, "a test")
    for name, value in values.items():
        found[name.replace("__", ".")] = Sourced(value, "a test")
    return Timing("test", "2026-11", found)


def latencies(median_s: float, p99_s: float | None = None) -> dict[str, float]:
    """Return the values that set all latencies to one median and one 99th percentile."""
    found = {f"{name}__median_s": median_s for name in LATENCIES}
    return found | {f"{name}__p99_s": median_s if p99_s is None else p99_s for name in LATENCIES}


def random_plan(workers: int, layers: int, width: int, seed: int) -> tuple[Partition, ExchangePlan, Work]:
    """Return a plan with random edges: each rank sends some of its rows to some other ranks."""
    rng = np.random.default_rng(seed)
    owners = tuple(rng.permutation(np.arange(width) % workers).astype(np.int32) for _ in range(layers))
    exchanges = []
    for layer in range(layers - 1):
        edges = []
        for source in range(workers):
            rows = np.flatnonzero(owners[layer] == source).astype(np.int32)
            others = [rank for rank in range(workers) if rank != source and rng.random() < 0.6]
            groups = [others[:2], *[[other] for other in others[2:]]] if rng.random() < 0.5 else [[o] for o in others]
            for targets in groups:
                taken = rows[rng.random(rows.size) < 0.7]
                if targets and taken.size:
                    edges.append(Edge(source, tuple(targets), taken))
        exchanges.append(tuple(sorted(edges, key=lambda edge: (edge.source, edge.targets))))
    connections = rng.integers(1, 10**6, (layers, workers))
    work = Work(connections.astype(np.int64), (width,) * layers, np.full(workers, 1000, np.int64))
    return Partition(workers, owners), ExchangePlan(workers, tuple(exchanges)), work


def scenario(
    workers: int = 4,
    layers: int = 5,
    *,
    seed: int = 0,
    samples: int = 12,
    channel: str = "queue",
    times: Timing | None = None,
    payloads: Payloads | None = None,
    micro_batches: int = 1,
    branching: int = 2,
    overlap: bool = True,
    **more: object,
) -> Scenario:
    """Return a scenario with a random plan."""
    partition, plan, work = random_plan(workers, layers, 12 * workers, seed)
    if channel == "direct":
        more.setdefault("memory_mb", 2048)
    return Scenario(
        partition,
        plan,
        work,
        payloads or dense_payloads(plan, samples=samples, micro_batches=micro_batches),
        RunSettings(workers=workers, micro_batches=micro_batches, branching=branching, overlap=overlap),
        channel,
        times or timing(),
        **more,  # type: ignore[arg-type]
    )
