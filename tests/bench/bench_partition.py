"""Communication volume and run time of each partitioner: ``make bench BENCH=partition``.

`row_sends` counts (row, target) pairs over the L-1 exchanges; inputs are read from the store, not exchanged. The paper
counts inputs too, so its partition is shown both ways. The largest sender and receiver are those of the worst exchange.
Imbalance is the largest rank's number of connections divided by the mean, in the worst layer.

Rows for several ranks are packed and sent once if their edges can be merged (`share_rows`). `packed` counts the rows of
all edges after merging, each once: it determines the bytes of a run, while `row_sends` counts deliveries.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from rich.console import Console
from rich.table import Table

import fsd_inference as fsd
from fsd_inference.partitioning import METHODS, Partition, exchange_plan, partition_network, share_rows, volumes
from tests.bench.cases import CONNECTIONS
from tests.support.shared import ROOT

PAPER = ROOT / "paper" / "partition_1024_p8.npz"


def paper_partition() -> tuple[Partition, int]:
    """Return the paper's partition of 1024 x 120 over 8 workers, and the number of rows in its first exchange."""
    with np.load(PAPER) as archive:
        owners = archive["owners"].astype(np.int32)
    layer = fsd.graph_challenge(1024, 1).layer(0).weights.tocoo()
    pairs = np.unique(np.stack([layer.col, owners[1][layer.row]]), axis=1)
    return Partition(8, tuple(owners[1:])), int((owners[0][pairs[0]] != pairs[1]).sum())


def add_row(table: Table, name: str, network: fsd.Network, partition: Partition, seconds: float) -> int:
    """Add a partition's figures to the table; return its row_sends."""
    plan = exchange_plan(network, partition)
    shared = [edge for exchange in share_rows(plan).exchanges for edge in exchange]
    found = volumes(network, partition, plan, seconds)
    table.add_row(
        name,
        f"{found.row_sends:,}",
        f"{sum(edge.rows.size for edge in shared):,}",
        f"{len(shared):,}",
        f"{max(found.largest_sender):,}",
        f"{max(found.largest_receiver):,}",
        f"{found.imbalance:.3f}",
        f"{seconds:.2f}" if seconds else "-",
    )
    return found.row_sends


def compare(console: Console, title: str, network: fsd.Network, workers: int, *, with_paper: bool) -> None:
    """Print a table with one row for each method."""
    table = Table(title=f"{title}, {workers} workers")
    numbers = ("row_sends", "packed", "edges", "largest sender", "largest receiver", "imbalance", "seconds")
    for column in ("method", *numbers):
        table.add_column(column, justify="right" if column in numbers else "left")
    for method in METHODS:
        started = time.perf_counter()
        partition = partition_network(network, workers, method)
        add_row(table, method, network, partition, time.perf_counter() - started)
    if with_paper and PAPER.exists():
        partition, first = paper_partition()
        row_sends = add_row(table, "the paper's", network, partition, 0.0)
        table.caption = f"The paper's partition sends {row_sends + first:,} rows with the inputs, as the paper counts."
    console.print(table)
    if with_paper and not PAPER.exists():
        console.print(f"SKIPPED the paper's partition: {PAPER} is not there (set FSD_SHARED)")


def main() -> None:
    """Partition both networks with every method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--layers", type=int, default=120, help="layers of the Graph Challenge network")
    parser.add_argument("--random-layers", type=int, default=24)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    console = Console(width=130, emoji=False)
    title = f"Graph Challenge, 1024 neurons x {options.layers} layers"
    is_the_papers = (options.layers, options.workers) == (120, 8)
    compare(console, title, fsd.graph_challenge(1024, options.layers), options.workers, with_paper=is_the_papers)
    network = fsd.random_network([1024] * (options.random_layers + 1), CONNECTIONS)
    title = f"random, 1024 neurons x {options.random_layers} layers, {CONNECTIONS} connections"
    compare(console, title, network, options.workers, with_paper=False)


if __name__ == "__main__":
    main()
