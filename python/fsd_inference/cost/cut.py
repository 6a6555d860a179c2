"""A network cut for some workers, as far as a planner must know it; long ones are thinned out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fsd_inference.cost.frames import Payloads
from fsd_inference.cost.work import Work
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.partition.plan import ExchangePlan
from fsd_inference.usage import Usage

_MOST_HEAD, _FEWEST = 8, 4
"""The first exchanges, where samples die, are all looked at; and so many in any case."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A network cut for P workers.

    Attributes
    ----------
    plan, work
        What is exchanged, and what each rank has to do.
    payloads : Payloads
        What the edges carry, the batch being one micro-batch.
    is_estimated : bool
        Whether the exchange was estimated instead of cutting the network.
    """

    plan: ExchangePlan
    work: Work
    payloads: Payloads
    is_estimated: bool = False

    @property
    def workers(self) -> int:
        """P."""
        return self.plan.workers


def with_samples(payloads: Payloads, samples: int, micro_batches: int = 1) -> Payloads:
    """Return payloads of other samples and micro-batches: sizes in proportion.

    Packing few samples takes a little more for each, which headers of frames outweigh.
    """
    before, sizes = sum(payloads.samples), micro_batch_sizes(samples, micro_batches)
    shares = np.array(sizes) / before
    exchanges = tuple(np.outer(exchange.sum(axis=1), shares) for exchange in payloads.exchanges)
    return replace(payloads, samples=sizes, exchanges=exchanges, input_bytes=payloads.input_bytes * samples / before)


@dataclass(frozen=True, slots=True)
class Thinned:
    """Some exchanges of a cut that stand for all.

    Attributes
    ----------
    cut : Cut
        The first exchanges, some of the others, and the last layer.
    weights : tuple of float
        For how many layers each of its layers stands.
    head, tail : Cut
        The first exchanges, which stand for themselves alone, and those that stand for several.
    """

    cut: Cut
    weights: tuple[float, ...]
    head: Cut
    tail: Cut

    @property
    def factor(self) -> float:
        """For how many layers each layer of the tail stands."""
        return max(self.weights)

    def usage(self, predict: Callable[[Cut], Usage]) -> Usage:
        """Return the usage of all exchanges: what those of the tail add to a run without any counts several times."""
        head = predict(self.head)
        if not self.tail.plan.exchanges:
            return head
        return head + _times(predict(self.tail) - predict(_only(self.cut, [])), self.factor)


def thin(cut: Cut, most_edges: int) -> Thinned:
    """Return a cut of about so many edges that stands for the whole: what takes long grows with the edges."""
    count = len(cut.plan.exchanges)
    edges = sum(map(len, cut.plan.exchanges))
    taken = min(count, max(_FEWEST, count * most_edges // max(1, edges)))
    head = min(_MOST_HEAD, taken // 2) if taken < count else count
    tail = [head + (2 * k + 1) * (count - head) // (2 * (taken - head)) for k in range(taken - head)]
    factor = (count - head) / len(tail) if tail else 1.0
    weights = (1.0,) * head + (factor,) * len(tail) + (1.0,)
    return Thinned(_only(cut, [*range(head), *tail]), weights, _only(cut, list(range(head))), _only(cut, tail))


def _only(cut: Cut, exchanges: list[int]) -> Cut:
    payloads, work = cut.payloads, cut.work
    layers = [*exchanges, work.layers - 1]
    # A layer computes with what is alive after the one before it, which may be left out.
    before = [layer - 1 for layer in layers[1:]]
    live = tuple(payloads.live[k] if k >= 0 else 1.0 for k in before)
    return Cut(
        ExchangePlan(cut.plan.workers, tuple(cut.plan.exchanges[k] for k in exchanges)),
        Work(work.connections[layers], tuple(work.inputs[k] for k in layers), work.shard_bytes),
        replace(
            payloads,
            exchanges=tuple(payloads.exchanges[k] for k in exchanges),
            live=live,
            density=tuple(payloads.density[k] for k in exchanges),
        ),
        cut.is_estimated,
    )


def _times(usage: Usage, factor: float) -> Usage:
    def counts(counter: Counter[str]) -> Counter[str]:
        # The sweep deletes by folder, however many objects lie there; and deletes are free.
        return Counter({kind: round(count * factor) for kind, count in counter.items() if kind != "s3.delete"})

    return Usage(
        counts(usage.requests),
        counts(usage.billed_units),
        *(
            round(getattr(usage, name) * factor)
            for name in ("retries", "misses", "empty_polls", "frames", "wire_bytes", "body_bytes", "received_bytes")
        ),
    )
