"""Predicted cost and time by network size, workers and batch size, compared with the paper's measured runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from fsd_inference.cost.paper import PaperRun, paper_runs
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.options import Option, Question
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import Timing

VARIANTS = ("serial", "queue", "object")
WORKERS = {1024: (2, 8, 20, 42, 62), 4096: (2, 8, 20, 42, 62), 16384: (2, 8, 20, 42, 62), 65536: (2, 8, 20, 42)}
"""Numbers of workers by neurons: the paper's, and the smallest, as far as partitioning takes only minutes."""
BATCHES = (100, 1000, 10_000, 100_000)
SAMPLES = 10_000
"""Number of samples in the paper's batches."""
OFTEN = 500.0
"""Number of queries a day, high enough that functions stay warm."""


@dataclass(frozen=True, slots=True)
class Point:
    """The planner's cheapest option (memory, micro-batches) for one variant and number of workers."""

    neurons: int
    samples: int
    option: Option


def points(
    neurons: int, cuts: Mapping[int, Cut], batches: Iterable[int], timing: Timing, prices: PriceTable
) -> Iterator[Point]:
    """Yield the options of `fsd advise` by batch: `serial`, and `queue` and `object` for each number of workers."""
    for samples in batches:
        advice = plan_options(cuts, Question(samples, queries_a_day=OFTEN), timing, prices)
        seen = set()
        for option in advice.options:
            kind = option.variant, option.workers
            if option.variant in VARIANTS and option.replicas == 1 and kind not in seen:
                seen.add(kind)
                yield Point(neurons, samples, option)


def paper_run(channel: str, neurons: int, workers: int) -> PaperRun | None:
    """Return the authors' measured run with hypergraph partitioning; None if there is none."""
    for run in paper_runs():
        if (run.channel, run.neurons, run.workers, run.partition) == (channel, neurons, workers, "hypergraph"):
            return run
    return None


def paper_rows(found: Iterable[Point], inputs: str) -> Iterator[tuple[object, ...]]:
    """Yield table rows of predictions and the authors' runs of the same network, channel and number of workers."""
    for point in found:
        option = point.option
        run = paper_run(option.variant, point.neurons, option.workers) if point.samples == SAMPLES else None
        if run is None or run.total_usd is None or option.usd is None:
            continue
        wall = float(run.figures["batch_wall_s"])
        yield (
            f"{point.neurons:,}", inputs, option.variant, option.workers,
            f"{run.function.memory_mb:,}" if run.function else "", f"{option.memory_mb:,}",
            f"{wall:.0f}", f"{option.wall_s:.1f}", f"{wall / option.wall_s:.1f}",
            f"{run.total_usd:.4f}", f"{option.usd:.4f}", f"{run.total_usd / option.usd:.1f}",
        )  # fmt: skip


PAPER_HEADS = (
    "neurons", "inputs", "channel", "P", "MB, paper", "MB",
    "s, paper", "s", "times less", "USD, paper", "USD", "times less",
)  # fmt: skip
HEADS = ("neurons", "samples", "serial", *(f"{channel}, P={p}" for channel in ("queue", "object") for p in (2, 8, 62)))


def rows(found: Iterable[Point]) -> Iterator[tuple[object, ...]]:
    """Yield table rows of seconds and dollars by network and batch; infeasible options are in brackets."""
    cells: dict[tuple[int, int], dict[tuple[str, int], str]] = {}
    for point in found:
        option = point.option
        text = f"{option.wall_s:.3g} s, {option.usd or 0:.2g}"
        known = cells.setdefault((point.neurons, point.samples), {})
        known[option.variant, option.workers] = text if option.problem is None else f"({text})"
    columns = [("serial", 1), *((channel, p) for channel in ("queue", "object") for p in (2, 8, 62))]
    for (neurons, samples), known in sorted(cells.items()):
        yield f"{neurons:,}", f"{samples:,}", *(known.get(column, "") for column in columns)
