"""Bytes and errors of runs whose exchanged activations are rounded, over local workers: ``make bench BENCH=wire``.

Errors are differences to the serial answer: the largest one relative to the largest absolute output, and the samples
whose largest output is another neuron, or whose category (whether any output is above 0) is another one.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.config import WIRES
from fsd_inference.partitioning import partition
from tests.bench.cases import CONNECTIONS, Case, graph_challenge_case


def random_case(layers: int, samples: int) -> Case:
    """Return a case of distinct random rows and dense random inputs, of which no sample dies."""
    network = fsd.random_network([4096] * (layers + 1), CONNECTIONS)
    x = sparse.csr_array(np.random.default_rng(0).standard_normal((samples, 4096), np.float32))
    return Case(f"random, 4096 neurons x {layers} layers, {samples:,} samples", network, x)


def compared(case: Case, workers: int) -> list[list[str]]:
    """Return a row of the table for each number format."""
    with fsd.Session(case.network) as alone:
        serial = alone.infer(case.x, outputs="dense")
    expected = np.asarray(serial.outputs)
    largest = float(np.abs(expected).max())
    rows, first = [], 0
    with tempfile.TemporaryDirectory() as folder:
        partition(case.network, Path(folder, "shards"), workers=workers)
        for wire in WIRES:
            with fsd.Session(Path(folder, "shards"), channel="local", wire=wire) as session:
                answer = session.infer(case.x, outputs="dense")
            found, sent = np.asarray(answer.outputs), answer.report.usage.wire_bytes
            first = first or sent
            error = float(np.abs(found - expected).max()) / largest
            labels = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
            categories = int(((found > 0).any(axis=1) != (expected > 0).any(axis=1)).sum())
            rows.append(
                [case.name, f"{workers}", wire, f"{sent / 1e6:.2f}", f"{sent / first:.2f}", f"{error:.1e}"]
                + [f"{count:,}" for count in (labels, categories)]
            )
    return rows


def main() -> None:
    """Run both networks in each number format and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=10_000, help="samples for the Graph Challenge network")
    parser.add_argument("--random-samples", type=int, default=500)
    options = parser.parse_args()
    names = ("network", "P", "wire", "MB sent", "ratio", "largest error", "other labels", "other categories")
    table = Table(*names)
    for case, workers in (
        (random_case(16, options.random_samples), 2),
        (graph_challenge_case(120, options.samples), 8),
    ):
        for row in compared(case, workers):
            table.add_row(*row)
    Console(width=140, emoji=False).print(table)


if __name__ == "__main__":
    main()
