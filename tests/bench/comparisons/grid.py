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
"""By neurons: those of the paper and the fewest, as far as cutting takes minutes."""
BATCHES = (100, 1000, 10_000, 100_000)
SAMPLES = 10_000
"""Of a batch of the paper."""
OFTEN = 500.0
"""Queries a day: functions are warm."""


@dataclass(frozen=True, slots=True)
class Point:
    """What the planner says of a variant with P workers: the cheapest memory and micro-batches."""

    neurons: int
    samples: int
    option: Option


def points(
    neurons: int, cuts: Mapping[int, Cut], batches: Iterable[int], timing: Timing, prices: PriceTable
) -> Iterator[Point]:
    """Yield, for each batch, `serial` and each number of workers of `queue` and `object`, as `fsd advise` has them."""
    for samples in batches:
        advice = plan_options(cuts, Question(samples, queries_a_day=OFTEN), timing, prices)
        seen = set()
        for option in advice.options:
            kind = option.variant, option.workers
            if option.variant in VARIANTS and option.replicas == 1 and kind not in seen:
                seen.add(kind)
                yield Point(neurons, samples, option)


def paper_run(channel: str, neurons: int, workers: int) -> PaperRun | None:
    """Return the authors' measured run, if there is one, of a hypergraph partition."""
    for run in paper_runs():
        if (run.channel, run.neurons, run.workers, run.partition) == (channel, neurons, workers, "hypergraph"):
            return run
    return None


def paper_rows(found: Iterable[Point], inputs: str) -> Iterator[tuple[object, ...]]:
    """Yield rows of a table: predictions beside the authors' runs of the same network, channel and workers."""
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
    """Yield rows of a table: seconds and dollars of each network and batch; what cannot be had in brackets."""
    cells: dict[tuple[int, int], dict[tuple[str, int], str]] = {}
    for point in found:
        option = point.option
        text = f"{option.wall_s:.3g} s, {option.usd or 0:.2g}"
        known = cells.setdefault((point.neurons, point.samples), {})
        known[option.variant, option.workers] = text if option.problem is None else f"({text})"
    columns = [("serial", 1), *((channel, p) for channel in ("queue", "object") for p in (2, 8, 62))]
    for (neurons, samples), known in sorted(cells.items()):
        yield f"{neurons:,}", f"{samples:,}", *(known.get(column, "") for column in columns)
