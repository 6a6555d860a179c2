"""Break-even points between `queue` and `object` in cost and time, by number of workers and bytes per pair of ranks.

The comparison is of one exchange in which every rank sends the same amount to every other rank; what a run does only
once is excluded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from fsd_inference.config import RunSettings
from fsd_inference.cost.model import Billing, run_cost
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.planner import express_timing
from fsd_inference.forecast.times import predict_times
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from fsd_inference.prediction import FunctionTime
from fsd_inference.usage import Usage

CHANNELS = ("queue", "object", "express")
DEFAULT = Billing()
DEAREST = Billing(publish_units="message", delivery="paid", queue_writes="billed")
WORKERS = (2, 4, 8, 16, 32, 64)
DRAWN = (2, 8, 32)
STEPS = (2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64)
SIZES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
KB = tuple(float(kb) for kb in np.geomspace(0.1, 1000, 13))
_HALVINGS = 10
_EXCHANGES = 4  # the usage of one exchange is averaged over these, beyond a run with one
_MEMORY_MB = 1769
_WIDTH = 64  # number of neurons, which does not affect the results


@dataclass(frozen=True, slots=True)
class Exchange:
    """The cost and time of one exchange: dollars for services, seconds, and dollars including the functions' time."""

    services_usd: float
    seconds: float
    usd: float


def all_to_all(workers: int, kb: float, exchanges: int) -> tuple[ExchangePlan, Payloads]:
    """Return a plan in which each pair of ranks exchanges `kb` kilobytes after each layer."""
    rows = np.arange(1, dtype=np.int32)
    pairs = ((source, target) for source in range(workers) for target in range(workers) if source != target)
    edges = tuple(Edge(source, (target,), rows) for source, target in pairs)
    sizes = np.full((len(edges), 1), kb * 1000)
    shares = (1.0,) * exchanges
    return ExchangePlan(workers, (edges,) * exchanges), Payloads((1,), (sizes,) * exchanges, 0.0, shares, shares)


class Channels:
    """Costs and times of exchanges over the channels.

    Parameters
    ----------
    timing : Timing
        Latencies and rates of the services.
    prices : PriceTable
        Prices of the services.
    """

    def __init__(self, timing: Timing, prices: PriceTable) -> None:
        self._timing = {"express": express_timing(timing)}
        self._default = timing
        self.prices = prices

    @cache  # noqa: B019 - few instances, which live as long as the program
    def exchange(self, channel: str, workers: int, kb: float, billing: Billing = DEFAULT) -> Exchange:
        """Return the cost and time of one exchange.

        Parameters
        ----------
        channel : {"queue", "object", "express"}
        workers : int
            Number of workers, P.
        kb : float
            Payload in kilobytes (1,000 bytes) from each rank to each other rank, before base64.
        billing : Billing
            Reading of AWS's pricing rules; its storage class is replaced by that of the channel.
        """
        billing = replace(billing, storage="express" if channel == "express" else "standard")
        served = "object" if channel == "express" else channel
        more, one = (_usage(served, workers, kb, count) for count in (1 + _EXCHANGES, 1))
        services = run_cost(more - one, [], self.prices, samples=1, billing=billing).usd / _EXCHANGES
        seconds = _seconds(served, workers, kb, self._timing.get(channel, self._default))
        functions = [FunctionTime(_MEMORY_MB, "x86_64", workers * seconds, 0)]
        return Exchange(services, seconds, services + run_cost(Usage(), functions, self.prices, samples=1).usd)

    def crossing_workers(
        self, kb: float, value: Callable[[Exchange], float], other: str, billing: Billing = DEFAULT
    ) -> int | None:
        """Return the fewest workers of `STEPS` with which `queue` takes more than another channel; None if none."""
        for workers in STEPS:
            queue, objects = (value(self.exchange(channel, workers, kb, billing)) for channel in ("queue", other))
            if queue > objects:
                return workers
        return None

    def crossing_kb(
        self, workers: int, value: Callable[[Exchange], float], other: str, billing: Billing = DEFAULT
    ) -> float | None:
        """Return the payload in kilobytes per pair above which `queue` takes more than another channel.

        None if it already does at the smallest of `KB`; infinity if it does not at the largest.
        """

        def ratio(kb: float) -> float:
            queue, objects = (value(self.exchange(channel, workers, kb, billing)) for channel in ("queue", other))
            return queue / objects

        if ratio(KB[0]) > 1:
            return None
        if ratio(KB[-1]) < 1:
            return math.inf
        low, high = KB[0], KB[-1]
        for _ in range(_HALVINGS):
            middle = float(np.sqrt(low * high))
            low, high = (middle, high) if ratio(middle) < 1 else (low, middle)
        return float(np.sqrt(low * high))


@cache
def _usage(channel: str, workers: int, kb: float, exchanges: int) -> Usage:
    plan, payloads = all_to_all(workers, kb, exchanges)
    return count_usage(plan, payloads, RunSettings(workers=workers), channel)


def _seconds(channel: str, workers: int, kb: float, timing: Timing) -> float:
    plan, payloads = all_to_all(workers, kb, 1)
    work = Work(np.zeros((2, workers), np.int64), (_WIDTH,) * 2, np.ones(workers, np.int64))
    times = predict_times(plan, work, payloads, RunSettings(workers=workers), channel, timing, memory_mb=_MEMORY_MB)
    return times.layers_s[0]


# --- crossings --------------------------------------------------------------------------------------------------------

_VALUES: dict[str, tuple[Callable[[Exchange], float], str, Billing]] = {
    "services": (lambda one: one.services_usd, "object", DEFAULT),
    "with functions' time": (lambda one: one.usd, "object", DEFAULT),
    "queue writes billed": (lambda one: one.usd, "object", Billing(queue_writes="billed")),
    "the dearest reading": (lambda one: one.usd, "object", DEAREST),
    "of express": (lambda one: one.usd, "express", DEFAULT),
    "time": (lambda one: one.seconds, "object", DEFAULT),
}
"""Comparisons: dollars or seconds, the other channel, and the reading of AWS's pricing rules."""
DOLLARS = "with functions' time"
HEADS = ("P", *_VALUES)


def crossings(made: Channels) -> dict[int, dict[str, float | None]]:
    """Return, by P and comparison, the payload in kilobytes per pair above which `queue` takes more."""
    return {
        workers: {name: made.crossing_kb(workers, *compared) for name, compared in _VALUES.items()}
        for workers in WORKERS
    }


def rows(found: dict[int, dict[str, float | None]]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table of crossings by P."""
    for workers, by_name in found.items():
        yield workers, *map(_size, by_name.values())


SIZE_HEADS = ("a pair and layer", *_VALUES)


def size_rows(made: Channels) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table of workers above which `queue` takes more, by kilobytes per pair."""
    for kb in SIZES:
        found = (made.crossing_workers(kb, *compared) for compared in _VALUES.values())
        yield f"{kb:g} kB", *(f"beyond {STEPS[-1]}" if workers is None else workers for workers in found)


def _size(kb: float | None) -> str:
    if kb is None:
        return f"below {KB[0]:g} kB"
    return f"{kb:.3g} kB" if kb < math.inf else f"beyond {KB[-1]:,.0f} kB"


def curves(made: Channels) -> dict[int, dict[str, list[float]]]:
    """Return the dollars of an exchange, including the functions' time, by P and channel, for each of `KB`."""
    return {
        workers: {channel: [made.exchange(channel, workers, kb).usd for kb in KB] for channel in CHANNELS}
        for workers in DRAWN
    }


# --- real networks ----------------------------------------------------------------------------------------------------

REAL_HEADS = ("network", "P", "pairs a layer", "a pair and layer", "crossing", "queue, USD", "object, USD")


@dataclass(frozen=True, slots=True)
class Real:
    """The position of a real, partitioned network relative to the crossing.

    Attributes
    ----------
    name : str
        Name of the network.
    workers : int
        Number of workers, P.
    pairs, kb : float
        Mean number of (source, target) pairs in a layer's exchange, and mean kilobytes of each.
    crossing_kb : float or None
        Kilobytes per pair at the crossing of P workers that all exchange with each other.
    queue_usd, object_usd : float
        Dollars for services in a run.
    """

    name: str
    workers: int
    pairs: float
    kb: float
    crossing_kb: float | None
    queue_usd: float
    object_usd: float


def real_network(name: str, cut: Cut, made: Channels) -> Real:
    """Return the position of a network relative to the crossing."""
    pairs = sum(len(edge.targets) for exchange in cut.plan.exchanges for edge in exchange)
    sizes = zip(cut.plan.exchanges, cut.payloads.exchanges, strict=True)
    received = sum(
        len(edge.targets) * size.sum() for edges, found in sizes for edge, size in zip(edges, found, strict=True)
    )
    settings = RunSettings(workers=cut.workers)
    queue_usd, object_usd = (
        run_cost(count_usage(cut.plan, cut.payloads, settings, channel), [], made.prices, samples=1).usd
        for channel in ("queue", "object")
    )
    crossing = made.crossing_kb(cut.workers, *_VALUES["services"])
    return Real(
        name, cut.workers, pairs / len(cut.plan.exchanges), received / pairs / 1000, crossing, queue_usd, object_usd
    )


def real_row(real: Real) -> tuple[object, ...]:
    """Return the table row of a network, with the cheaper channel's dollars in bold."""
    dollars = [f"{usd:.4f}" for usd in (real.queue_usd, real.object_usd)]
    cheaper = int(real.object_usd < real.queue_usd)
    dollars[cheaper] = f"**{dollars[cheaper]}**"
    return real.name, real.workers, f"{real.pairs:.0f}", f"{real.kb:.3g} kB", _size(real.crossing_kb), *dollars
