"""Rows, bytes and cost of the exchanges under each partitioner, above all random and hypergraph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fsd_inference.config import RunSettings
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.cut import Cut

METHODS = ("random", "block", "graph", "hypergraph")
WORKERS = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Volume:
    """The volume exchanged in a run with a partition, and its cost.

    Attributes
    ----------
    method : str
        Partitioning method.
    workers : int
        Number of workers, P.
    row_sends : int
        Number of (row, target) pairs over all exchanges.
    megabytes : float
        Megabytes of frames received.
    queue_usd, object_usd : float
        Dollars for services, without the functions' time.
    """

    method: str
    workers: int
    row_sends: int
    megabytes: float
    queue_usd: float
    object_usd: float


def volumes(cuts: Mapping[tuple[str, int], Cut], prices: PriceTable) -> Iterator[Volume]:
    """Yield the volume of each partition, by (partitioner, P)."""
    for (method, workers), cut in cuts.items():
        settings = RunSettings(workers=workers)
        queue, objects = (count_usage(cut.plan, cut.payloads, settings, channel) for channel in ("queue", "object"))
        queue_usd, object_usd = (run_cost(used, [], prices, samples=1).usd for used in (queue, objects))
        sends = sum(edge.rows.size * len(edge.targets) for exchange in cut.plan.exchanges for edge in exchange)
        yield Volume(method, workers, sends, objects.received_bytes / 1e6, queue_usd, object_usd)


HEADS = (
    "network", "P", "partitioner", "rows sent", "of random", "MB", "of random", "queue, USD", "object, USD",
)  # fmt: skip


def rows(name: str, found: list[Volume]) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table of volumes."""
    drawn = {volume.workers: volume for volume in found if volume.method == "random"}
    for volume in sorted(found, key=lambda volume: (volume.workers, METHODS.index(volume.method))):
        base = drawn[volume.workers]
        yield (
            name, volume.workers, volume.method,
            f"{volume.row_sends:,}", f"{volume.row_sends / base.row_sends:.0%}",
            f"{volume.megabytes:.1f}", f"{volume.megabytes / base.megabytes:.0%}",
            f"{volume.queue_usd:.5f}", f"{volume.object_usd:.5f}",
        )  # fmt: skip
