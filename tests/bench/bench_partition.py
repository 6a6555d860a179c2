"""What each partitioner makes the workers exchange, and its own time: ``make bench BENCH=partition``.

`row_sends` counts (row, target) pairs over the L-1 exchanges: the inputs are read from the store, not exchanged. The
paper counts those too, so its partition is shown both ways. Largest sender and receiver are of the worst exchange;
imbalance is the largest rank's connections over the even share, of the worst layer.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

import fsd_inference as fsd
from fsd_inference.partition import METHODS, Partition, exchange_plan, partition_network, volumes
from fsd_inference.records import PlanVolumes
from tests.bench.cases import CONNECTIONS
from tests.support.shared import ROOT

PAPER = ROOT / "paper" / "partition_1024_p8.npz"


def paper_partition() -> tuple[Partition, int]:
    """Return the paper's partition of 1024 x 120 over 8 workers, and the rows that its first exchange sends."""
    with np.load(PAPER) as archive:
        owners = archive["owners"].astype(np.int32)
    layer = fsd.graph_challenge(1024, 1).layer(0).weights.tocoo()
    pairs = np.unique(np.stack([layer.col, owners[1][layer.row]]), axis=1)
    return Partition(8, tuple(owners[1:])), int((owners[0][pairs[0]] != pairs[1]).sum())


def add_row(table: Table, name: str, found: PlanVolumes, best: int, note: str = "") -> None:
    """Add what a partition gives."""
    table.add_row(
        name,
        f"{found.row_sends:,}",
        f"{found.row_sends / best:.2f}",
        f"{max(found.largest_sender):,}",
        f"{max(found.largest_receiver):,}",
        f"{found.imbalance:.3f}",
        f"{found.seconds:.2f}" if found.seconds else "-",
        note,
    )


def compare(console: Console, title: str, network: fsd.Network, workers: int, *, with_paper: bool) -> None:
    """Print a row a method."""
    found: dict[str, PlanVolumes] = {}
    for method in METHODS:
        started = time.perf_counter()
        partition = partition_network(network, workers, method)
        seconds = time.perf_counter() - started
        found[method] = volumes(network, partition, exchange_plan(network, partition), seconds)
    best = min(volume.row_sends for volume in found.values())
    table = Table(title=f"{title}, {workers} workers")
    columns = ("method", "row_sends", "x best", "largest sender", "largest receiver", "imbalance", "seconds", "")
    for column in columns:
        table.add_column(column, justify="left" if column in {"method", ""} else "right")
    for method, volume in found.items():
        add_row(table, method, volume, best)
    if with_paper and PAPER.exists():
        partition, first = paper_partition()
        volume = volumes(network, partition, exchange_plan(network, partition), 0.0)
        add_row(table, "the paper's", volume, best, f"{volume.row_sends + first:,} with the inputs, as it counts")
    console.print(table)
    if with_paper and not PAPER.exists():
        console.print(f"SKIPPED the paper's partition: {PAPER} is not there (set FSD_SHARED)")


def main() -> None:
    """Partition both networks with every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=120, help="of the Graph Challenge network")
    parser.add_argument("--random-layers", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    console = Console(width=130)
    title = f"Graph Challenge, 1024 neurons x {options.layers} layers"
    is_the_papers = (options.layers, options.workers) == (120, 8)
    compare(console, title, fsd.graph_challenge(1024, options.layers), options.workers, with_paper=is_the_papers)
    network = fsd.random_network([1024] * (options.random_layers + 1), CONNECTIONS)
    title = f"random, 1024 neurons x {options.random_layers} layers, {CONNECTIONS} connections"
    compare(console, title, network, options.workers, with_paper=False)


if __name__ == "__main__":
    main()
