"""Run time of the simulator for a thousand workers and 120 layers: ``make bench BENCH=simulation``.

The network is the Graph Challenge's with 16,384 neurons. It is divided without a partitioner: the 16 outputs that have
the same inputs stay together, and each worker has one or two such groups. Target: 60 s of one core on either channel.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from rich.console import Console

import fsd_inference as fsd
from fsd_inference.config import RunSettings
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.timing import load_timing
from fsd_inference.forecast.work import rank_work
from fsd_inference.partitioning import Partition, exchange_plan
from fsd_inference.simulator import Scenario, simulate

_COPIES = 16  # number of outputs with the same inputs


def like_outputs_together(neurons: int, layers: int, workers: int) -> Partition:
    """Partition each layer into contiguous groups of outputs that have the same inputs."""
    groups = neurons // _COPIES
    owners = (np.arange(neurons) % groups * workers // groups).astype(np.int32)
    return Partition(workers, (owners,) * layers)


def main() -> None:
    """Compute the plan, then simulate it over each channel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, default=16_384)
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--live", type=float, default=0.03, help="fraction of samples that are alive after each layer")
    parser.add_argument("--buckets", type=int, default=4)
    options = parser.parse_args()
    console = Console(width=160, emoji=False)
    network = fsd.graph_challenge(options.neurons, options.layers)
    began = time.process_time()
    partition = like_outputs_together(options.neurons, options.layers, options.workers)
    plan = exchange_plan(network, partition)
    work = rank_work(network, partition)
    edges = sum(len(exchange) for exchange in plan.exchanges)
    console.print(
        f"{network.name}, P={options.workers}, {edges:,} edges: "
        f"plan made in {time.process_time() - began:.0f} s of one core"
    )
    payloads = dense_payloads(plan, samples=options.samples, live=options.live)
    settings = RunSettings(workers=options.workers)
    for channel in ("queue", "object"):
        it = Scenario(partition, plan, work, payloads, settings, channel, load_timing(), buckets=options.buckets)
        began, by_clock = time.process_time(), time.perf_counter()
        found = simulate(it)
        console.print(
            f"{channel}: simulated in {time.process_time() - began:.0f} s of one core "
            f"({time.perf_counter() - by_clock:.0f} s by the clock): a run of {found.wall_s:.1f} s, launch "
            f"{found.launch_s:.1f} s, {sum(found.usage.requests.values()):,} requests, {found.usage.retries:,} of them "
            f"repeats, error: {found.error}"
        )
    console.print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")


if __name__ == "__main__":
    main()
