"""Whole runs of this checkout beside those of others: ``make bench BENCH=releases ARGS="--beside DIRECTORY"``.

Each checkout cuts the networks itself, and runs with its own compiled extension. All take turns; the figures are the
smallest of each. Networks whose samples die are the Graph Challenge's, with handwritten digits; in random networks all
values stay alive, and inputs are dense.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack

HERE = Path(__file__).resolve().parents[2]

# Prints the figures of the best of several runs of a session. It knows the names of former releases too.
PROGRAM = """
import json, resource, sys
from pathlib import Path
import numpy as np
from scipy import sparse
import fsd_inference as fsd
from fsd_inference.errors import SettingError

def main(channel, stack, folder, kind, *sizes):
    neurons, layers, workers, samples, runs = map(int, sizes)
    if kind == "random":
        network = fsd.random_network([neurons] * (layers + 1), 32)
        x = np.random.default_rng(0).standard_normal((samples, neurons), np.float32)
    else:
        network, x = fsd.graph_challenge(neurons, layers), fsd.digits(neurons, samples)
    shards = Path(folder, f"{kind}-{neurons}-{layers}-{workers}")
    if not shards.exists():
        fsd.partition(network, shards, workers=workers, method="graph")
    try:
        session = fsd.Session(shards, channel=channel, stack=stack)
    except SettingError:
        # Before it was renamed.
        session = fsd.Session(shards, channel={"local": "memory"}.get(channel, channel), stack=stack)
    with session:
        session.prepare()
        reports = [session.infer(x).report for _ in range(runs)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({
        "wall, s": min(report.wall_s for report in reports),
        "processor of the ranks, s a run": (used.ru_utime + used.ru_stime) / runs,
        "peak memory of a rank, MB": max(report.peak_rss_bytes for report in reports) / 1e6,
        "frames, MB": reports[-1].usage.wire_bytes / 1e6,
    }))

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] or None, *sys.argv[3:])
"""

Figures = dict[str, float]


@dataclass(frozen=True)
class Case:
    """A kind of network and its sizes, the samples, and the channels to run over."""

    kind: str
    neurons: int
    layers: int
    workers: int
    samples: int
    channels: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}, {self.neurons} x {self.layers}, {self.workers} workers, {self.samples:,} samples"


CASES = {
    "live": Case("random", 4096, 16, 2, 2_000, ("local",)),
    "dying": Case("Graph Challenge", 1024, 120, 8, 10_000, ("local", "queue", "object")),
    "memory": Case("random", 16384, 24, 2, 100, ("local",)),
}


def figures(checkout: Path, case: Case, channel: str, folder: Path, runs: int) -> Figures:
    """Return the figures of the best run of a session in a new process."""
    stack = "" if channel == "local" else str(folder / "stack.json")
    sizes = [case.neurons, case.layers, case.workers, case.samples, runs]
    own = folder / checkout.name
    command = [sys.executable, "-c", PROGRAM, channel, stack, str(own), case.kind, *map(str, sizes)]
    environment = os.environ | {"PYTHONPATH": str(checkout / "python")}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: Figures = json.loads(done.stdout)
    return found


def table(title: str, found: dict[str, list[Figures]]) -> Table:
    """Return a table of the smallest figures of each checkout, and ratios of the first to the others."""
    first, *others = found
    shown = Table("", first, *(column for name in others for column in (name, f"{first} / {name}")), title=title)
    for column in shown.columns[1:]:
        column.justify = "right"
    for figure in found[first][0]:
        least = {name: min(turn[figure] for turn in turns) for name, turns in found.items()}
        cells = [f"{least[first]:.3g}"]
        for name in others:
            cells += [f"{least[name]:.3g}", f"{least[first] / least[name]:.2f}" if least[name] else "-"]
        shown.add_row(figure, *cells)
    return shown


def _without(path: Path, field: str) -> None:
    """Remove a field that former releases do not know, and that may be absent, from a JSON file."""
    value = json.loads(path.read_bytes())
    del value[field]
    path.write_text(json.dumps(value))


def main() -> None:
    """Run the cases in all checkouts in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="other checkouts, compiled")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3, help="of each session")
    options = parser.parse_args()
    checkouts = [HERE, *(path.resolve() for path in options.beside)]
    console = Console(width=130, emoji=False)
    workers = max(case.workers for case in CASES.values())
    settings = StackSettings("fsd-bench", ranks=workers, purge_settle_s=0.0)
    with tempfile.TemporaryDirectory() as made, temporary_stack(settings) as stack:
        folder = Path(made)
        save_stack(stack, folder / "stack.json")
        _without(folder / "stack.json", "publish_quota")
        for case in (CASES[name] for name in options.cases):
            for channel in case.channels:
                found: dict[str, list[Figures]] = {}
                for _ in range(options.rounds):
                    for checkout in checkouts:
                        turn = figures(checkout, case, channel, folder, options.runs)
                        found.setdefault(checkout.name, []).append(turn)
                console.print(table(f"{case}, {channel}", found))


if __name__ == "__main__":
    main()
