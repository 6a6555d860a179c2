"""Predicted time and cost of `queue`, `object` and `direct` (Lambda MicroVMs) by network and number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.options import Advice, Option, Question
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import Sourced, Timing

WORKERS = (2, 8, 20)
HEADS = (
    "network", "P", "queue", "object", "direct", "MB", "of it launching", "0.111 s a frame", "fastest direct", "MB",
)  # fmt: skip
_QUESTION = Question(10_000, queries_a_day=500)
_FASTEST = replace(_QUESTION, budget_usd=100.0)
_SLOW = "a request that starts a Python process (Vivek0712/awesome-microvm on GitHub, read 2026-11): an upper bound"
_SLOW_FRAMES = {"frame.median_s": Sourced(0.111, _SLOW), "frame.p99_s": Sourced(0.128, _SLOW)}


def rows(name: str, cuts: Mapping[int, Cut], timing: Timing, prices: PriceTable) -> Iterator[tuple[object, ...]]:
    """Yield the table rows of a network, of which `cuts` has the partitions by P: seconds and dollars of a query."""
    slower = timing.with_values(f"{timing.name}, slow frames", _SLOW_FRAMES)
    known, slow, fast = (
        _options(plan_options(cuts, question, of, prices))
        for question, of in ((_QUESTION, timing), (_QUESTION, slower), (_FASTEST, timing))
    )
    launching = 2 * timing.latency("launch").mean_s
    for workers in sorted(cuts.keys() - {1}):
        queue, objects, direct = (known[variant, workers] for variant in ("queue", "object", "direct"))
        fastest = fast["direct", workers]
        yield (
            name, workers, _cell(queue), _cell(objects), _cell(direct), f"{direct.memory_mb:,}",
            f"{launching / direct.wall_s:.0%}", _cell(slow["direct", workers]), _cell(fastest),
            f"{fastest.memory_mb:,}",
        )  # fmt: skip


def _options(advice: Advice) -> dict[tuple[str, int], Option]:
    """Return the option that is ranked first, by variant and P."""
    return {(option.variant, option.workers): option for option in reversed(advice.options)}


def _cell(option: Option) -> str:
    text = f"{option.wall_s:.3g} s, {option.usd or 0:.2g}"
    return text if option.problem is None else f"({text})"
