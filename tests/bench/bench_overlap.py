"""Time saved by overlapping computation and communication under latency: ``make bench BENCH=overlap``.

Every frame is delayed (60 ms: half on its way to the service, half from it), over real processes and local sockets.
There are two networks, both random:

- *local*: a neuron's inputs are its neighbours, so a rank sends few of its rows (the boundary) and needs few rows of
  other ranks. With overlap, boundary rows are computed and sent first, and the other rows are computed while the frames
  travel. Without overlap, all rows are computed, then sent, and nothing is computed until the service accepts them.
- *spread*: inputs are anywhere, so every row is a boundary row and sending boundary rows first gains nothing. Here
  micro-batches help: one computes while another travels.

Times are in seconds from the moment the last rank has loaded its shard to the end of the last layer, so they exclude
process startup. Each is the median of a few rounds in which the variants are interleaved.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.partitioning import partition
from tests.support.runs import same, serial, session

CONNECTIONS = 32
REACH = 256  # maximum distance of a neuron's inputs in the local network
WORKERS = 2


def local_network(neurons: int, layers: int) -> fsd.Network:
    """Return a network with the weights and biases of `random`, but connections to random neighbours of each neuron."""
    rng = np.random.default_rng(1)
    near = np.clip(np.arange(neurons) - REACH, 0, neurons - 2 * REACH)
    made = []
    for layer in fsd.random_network([neurons] * (layers + 1), CONNECTIONS):
        picks = rng.random((neurons, 2 * REACH), np.float32).argpartition(CONNECTIONS, axis=1)[:, :CONNECTIONS]
        columns = np.sort(picks, axis=1) + near[:, None]
        shape = (neurons, neurons)
        weights = sparse.csr_array((layer.weights.data, columns.reshape(-1), layer.weights.indptr), shape=shape)
        made.append(fsd.Layer(weights, layer.bias, layer.groups))
    return fsd.Network(made)


def layers_s(report: fsd.RunReport) -> float:
    """Return the seconds from the end of loading of the last rank to the end of the last layer."""
    events = [event for rank in report.ranks for event in rank.events]
    loaded = max(end for name, *_, end in events if name == "load")
    return float(max(end for name, *_, end in events if name in {"boundary", "interior", "all"}) - loaded)


def measure(network: fsd.Network, x: sparse.csr_array, options: argparse.Namespace) -> Table:
    """Return a table of a network's seconds with and without overlap, by micro-batches."""
    expected = serial(network, x)
    seconds: dict[tuple[int, bool], list[float]] = defaultdict(list)
    wall: dict[tuple[int, bool], list[float]] = defaultdict(list)
    compute = []
    with tempfile.TemporaryDirectory() as folder:
        rows = partition(network, Path(folder, "shards"), workers=WORKERS, method="block").volumes.row_sends
        for _ in range(options.rounds):
            for micro_batches, overlap in itertools.product(options.micro_batches, (True, False)):
                how = {"micro_batches": micro_batches, "overlap": overlap}
                delay_s = options.delay_ms / 1e3
                with session(Path(folder, "shards"), "local", delay_s=delay_s, **how) as distributed:
                    answer = distributed.infer(x)
                if not same(answer.outputs, expected):
                    raise SystemExit("the answer differs from the serial one")
                seconds[micro_batches, overlap].append(layers_s(answer.report))
                wall[micro_batches, overlap].append(answer.report.wall_s)
                compute.append(answer.report.compute_s)
    share = rows / ((len(network) - 1) * network.widths[-1])
    layer_ms = 1e3 * statistics.median(compute) / len(network)
    table = Table(
        title=f"{share:.0%} of the rows are sent; a layer computes {layer_ms:.0f} ms, "
        f"its frames travel {options.delay_ms:g} ms"
    )
    columns = ("micro-batches", "overlap, s", "no overlap, s", "no overlap / overlap", "wall, overlap", "wall, none")
    for column in columns:
        table.add_column(column, justify="right")
    for micro_batches in options.micro_batches:
        on, off = (statistics.median(seconds[micro_batches, overlap]) for overlap in (True, False))
        walls = (statistics.median(wall[micro_batches, overlap]) for overlap in (True, False))
        table.add_row(
            str(micro_batches), f"{on:.2f}", f"{off:.2f}", f"{off / on:.2f} x", *(f"{value:.2f} s" for value in walls)
        )
    return table


def main() -> None:
    """Measure both networks and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--neurons", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--delay-ms", type=float, default=60.0)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console(width=130, emoji=False)
    x = sparse.csr_array(np.random.default_rng(0).standard_normal((options.samples, options.neurons), np.float32))
    networks = {
        "local": local_network(options.neurons, options.layers),
        "spread": fsd.random_network([options.neurons] * (options.layers + 1), CONNECTIONS),
    }
    for name, network in networks.items():
        size = f"{options.neurons} neurons x {options.layers} layers, {options.samples:,} samples"
        console.rule(f"{name}: {size}, {WORKERS} workers")
        console.print(measure(network, x, options))


if __name__ == "__main__":
    main()
