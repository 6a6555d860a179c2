"""Starting ranks: ``make bench BENCH=starting``.

Local ranks: a session's first run and its later ones, with ranks forked by the session's server and with new
interpreters. Functions: processor seconds of the worker function until it asks for its first event (INIT), and from
there to its answer. Lambda gives INIT full processors, and the first request the share that goes with the memory:
0.15 of one for 256 MB, 1 for 1769 MB. Here a control group limits the process to that share as soon as INIT is over.

All variants run in turn, several rounds; the figures are the smallest of each. ``--beside DIRECTORY ...`` adds those of
other checkouts, with their own compiled extensions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import fsd_inference as fsd
from fsd_inference.aws.events import RankEvent
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from tests.support.calls import Caller, caller
from tests.support.runtime_api import RuntimeApi

HERE = Path(__file__).resolve().parents[2]
CHANNELS = ("local", "queue", "object")
SHARES = (0.15, 1.0)
QUOTAS = Path("/sys/fs/cgroup/cpu")
"""Control groups (version 1) that limit processor time."""
PERIOD_US = 100_000
TICKS_S = os.sysconf("SC_CLK_TCK")
FUNCTION_MB = 1769

# Prints the figures of a session's first run, and the smallest of the others.
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import fsd_inference as fsd
from fsd_inference.errors import SettingError

def opened(channel, stack, shards):
    try:
        return fsd.Session(shards, channel=channel, stack=stack)
    except SettingError:
        # Before it was renamed.
        return fsd.Session(shards, channel={"local": "memory"}.get(channel, channel), stack=stack)

def main(channel, stack, folder, workers, layers, samples):
    x = fsd.digits(1024, samples)
    if not Path(folder, "shards").exists():
        fsd.partition(fsd.graph_challenge(1024, layers), Path(folder, "shards"), workers=workers, method="block")
    began, reports = time.perf_counter(), []
    with opened(channel, stack, Path(folder, "shards")) as session:
        session.prepare()
        for _ in range(3):
            reports.append(session.infer(x).report)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({
        "launch of the first run, s": reports[0].launch_s,
        "launch of another, s": min(report.launch_s for report in reports[1:]),
        "wall of the first run, s": reports[0].wall_s,
        "wall of another, s": min(report.wall_s for report in reports[1:]),
        "session of 3 runs, s": time.perf_counter() - began,
        "processor of its ranks, s": used.ru_utime + used.ru_stime,
    }))

if __name__ == "__main__":
    channel, stack, folder, *sizes = sys.argv[1:]
    main(channel, stack or None, folder, *map(int, sizes))
"""

Figures = dict[str, float]


@dataclass(frozen=True)
class Variant:
    """A way to start ranks: a checkout, and the environment variables that choose it there."""

    name: str
    checkout: Path
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a program that uses the checkout."""
        return os.environ | {"PYTHONPATH": str(self.checkout / "python")} | self.variables


def start_session(variant: Variant, channel: str, stack: Path | None, folder: Path, sizes: list[int]) -> Figures:
    """Open a session in a new process, and return the figures of its runs."""
    command = [sys.executable, "-c", PROGRAM, channel, str(stack or ""), str(folder), *map(str, sizes)]
    done = subprocess.run(command, env=variant.environment, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout)
    return figures


# --- functions --------------------------------------------------------------------------------------------------------


@contextmanager
def quota(name: str) -> Iterator[Path | None]:
    """Create a control group for a `with` block; None where that is not possible."""
    group = QUOTAS / name
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
    except OSError:
        yield None
        return
    yield group
    group.rmdir()


def processor_s(process: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_S


def start_function(variant: Variant, stack: StackSpec, event: RankEvent, share: float) -> Figures | None:
    """Run the worker function for one event, under a share of a processor after INIT; None if it did not succeed."""
    marks: list[tuple[float, float]] = []
    process: subprocess.Popen[str]
    with quota(f"fsd-bench-{os.getpid()}") as group:

        def mark() -> None:
            if len(marks) == 1 and group is not None:
                (group / "cpu.cfs_quota_us").write_text("-1")
            marks.append((time.perf_counter(), processor_s(process.pid)))
            if len(marks) == 1 and group is not None:
                (group / "cpu.cfs_quota_us").write_text(str(int(share * PERIOD_US)))

        with RuntimeApi(event.to_json(), mark) as api, tempfile.TemporaryDirectory() as folder:
            variables = {
                "FSD_STACK_BUCKET": stack.network_bucket,
                "AWS_ENDPOINT_URL": str(stack.endpoint_url),
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "TMPDIR": folder,
            }
            began = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", "fsd_inference.aws.handlers.worker.handle"],
                env=variant.environment | api.environment | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if group is not None:
                (group / "cgroup.procs").write_text(str(process.pid))
            process.communicate(timeout=300)
        if not api.answers or api.answers[0].body.get("result") != "done":
            return None
    (ready, init_s), (answered, all_s) = marks[:2]
    return {
        "INIT, s": ready - began,
        "INIT, processor s": init_s,
        "first request, s": answered - ready,
        "first request, processor s": all_s - init_s,
    }


def worker_stack(made: StackSpec, calls: Caller) -> StackSpec:
    """Describe a worker function, which is started here, in the stack."""
    function = WorkerFunction(FUNCTION_MB, "arn:aws:lambda:us-east-1:000000000000:function:worker")
    functions = FunctionsSpec(function.arn, (function,), made.lanes[0].queue_urls[0], 60.0)
    stack = replace(made, functions=functions, emulator=None)
    with tempfile.TemporaryDirectory() as folder:
        save_stack(stack, Path(folder, "stack.json"))
        calls.plans.put(STACK_KEY, Path(folder, "stack.json").read_bytes())
    return stack


def function_figures(variants: list[Variant], made: StackSpec, rounds: int) -> Iterator[tuple[str, Variant, Figures]]:
    """Start the worker function of every variant with every share of a processor, and yield the figures of each."""
    network = fsd.graph_challenge(1024, 4)
    with caller(made) as calls:
        stack = worker_stack(made, calls)
        pushed = calls.push(network, 1)
        digest = _stack_digest(calls)
        for _ in range(rounds):
            for share in SHARES:
                for variant in variants:
                    spec = calls.event(pushed, fsd.digits(1024, 64), "queue", FUNCTION_MB).spec
                    spec = replace(spec, deadline=time.time() + 120)
                    code = code_digest(variant.checkout / "python" / "fsd_inference")
                    event = RankEvent(spec, 0, None, "queue", FUNCTION_MB, 0, code, digest)
                    figures = start_function(variant, stack, event, share)
                    if figures is None:
                        print(f"{variant.name}: the worker function cannot carry out an event of this version")
                        continue
                    yield f"worker function, {share:g} processors", variant, figures


def _stack_digest(calls: Caller) -> str:
    """Return the digest by which a rank's event names the description of the stack."""
    return hashlib.sha256(calls.plans.get(STACK_KEY) or b"").hexdigest()[:32]


# --- tables -----------------------------------------------------------------------------------------------------------


class Smallest:
    """The smallest figures of each subject (a channel, or a share of a processor) and variant."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Figures]] = {}

    def add(self, subject: str, variant: Variant, figures: Figures) -> None:
        """Take the figures of one turn."""
        kept = self._found.setdefault(subject, {}).setdefault(variant.name, dict(figures))
        for name, value in figures.items():
            kept[name] = min(kept[name], value)

    def show(self, console: Console) -> None:
        """Print a table for each subject; ratios are to the first variant."""
        for subject, by_variant in self._found.items():
            first, *others = by_variant
            table = Table(subject, first, *(column for name in others for column in (name, f"/ {first}")))
            for column in table.columns[1:]:
                column.justify = "right"
            for figure, value in by_variant[first].items():
                cells = [f"{value:.3f}"]
                for name in others:
                    other = by_variant[name][figure]
                    cells += [f"{other:.3f}", f"{other / value:.1f} x" if value else "-"]
                table.add_row(figure, *cells)
            console.print(table)


def main() -> None:
    """Measure all variants in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--layers", type=int, default=120)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--channels", nargs="*", default=CHANNELS, choices=CHANNELS)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="other checkouts")
    options = parser.parse_args()
    variants = [Variant("forked", HERE, {})]
    beside = [Variant(checkout.name, checkout.resolve(), {}) for checkout in options.beside]
    sizes = [options.workers, options.layers, options.samples]
    console = Console(width=130, emoji=False)
    settings = StackSettings("fsd-bench", ranks=options.workers, purge_settle_s=0.0)
    found = Smallest()
    with tempfile.TemporaryDirectory() as folder, temporary_stack(settings) as made:
        save_stack(made, Path(folder, "stack.json"))
        for _ in range(options.rounds):
            for channel in options.channels:
                stack = None if channel == "local" else Path(folder, "stack.json")
                for variant in [*variants, Variant("new interpreters", HERE, {"FSD_FORK": "0"}), *beside]:
                    place = Path(folder, variant.checkout.name)
                    found.add(channel, variant, start_session(variant, channel, stack, place, sizes))
        ours = [Variant("here", HERE, {}), *beside]
        for share, variant, figures in function_figures(ours, made, options.rounds):
            found.add(share, variant, figures)
    console.print(f"{options.workers} workers, 1024 neurons x {options.layers} layers, {options.samples} samples")
    found.show(console)


if __name__ == "__main__":
    main()
