"""Decision tables of docs/choosing.md: the best option of each variant, as ranked by `fsd advise`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.advising import advise
from fsd_inference.forecast.options import Advice, Question
from fsd_inference.forecast.timing import Timing
from fsd_inference.network import Network, random_network
from tests.bench.comparisons.subjects import Subject

QUESTION = Question(10_000, queries_a_day=500)
WIDE_QUESTION = Question(100, queries_a_day=500, largest_mb=3008)
HEADS = ("network", "option", "MB", "time", "USD a query", "why, or why not")
EVEN_HEADS = ("network", "queries a day", "at most")


def advice(subject: Subject, timing: Timing, prices: PriceTable) -> Advice:
    """Return the advice for an official network, from cached plans; others are estimated."""
    return advise(
        subject.network, QUESTION, timing=timing, prices=prices, x=subject.x, cache=subject.folder, cutting_s=0.0
    )


def wide_advice(folder: Path, timing: Timing, prices: PriceTable, *, neurons: int = 65536, layers: int = 50) -> Advice:
    """Return the advice for a random network that is too large for small functions; it is cached in `folder`."""
    path = folder / f"wide-{neurons}x{layers}"
    if not path.exists():
        random_network([neurons] * (layers + 1), 128).save(path)
    return advise(Network.load(path), WIDE_QUESTION, timing=timing, prices=prices, cache=folder)


def rows(name: str, found: Advice) -> Iterator[tuple[object, ...]]:
    """Yield table rows of the first option of each variant and the first one with replicas; the best is bold."""
    seen = set()
    for option in found.options:
        kind = option.variant, option.replicas > 1
        if kind not in seen:
            seen.add(kind)
            shown = f"**{option.name}**" if option is found.options[0] else option.name
            yield (
                name, f"{shown} ~" if option.is_estimated else shown,
                "" if option.memory_mb is None else f"{option.memory_mb:,}", f"{option.wall_s:.3g} s",
                "" if option.usd is None else f"{option.usd:.2g}", option.problem or option.reason,
            )  # fmt: skip


def even_row(name: str, found: Advice) -> tuple[object, ...]:
    """Return a table row: the queries a day above which an always-on server costs less than functions."""
    even = found.break_even
    return (name, *(("", "") if even is None else (f"{even.queries_a_day:,.0f}", f"{even.most_queries_a_day:,.0f}")))
