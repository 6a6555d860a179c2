"""A network cut for some number of workers, as the planner sees it; long networks are thinned out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import ExchangePlan

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


@dataclass(frozen=True, slots=True)
class Thinned:
    """Some exchanges of a cut that stand for all.

    Attributes
    ----------
    cut : Cut
        The first exchanges, some of the others, and the last layer.
    weights : tuple of float
        For how many layers each of its layers stands.
    """

    cut: Cut
    weights: tuple[float, ...]

    @property
    def exchange_weights(self) -> tuple[float, ...]:
        """For how many exchanges each of its exchanges stands."""
        return self.weights[:-1]


def thin(cut: Cut, most_edges: int) -> Thinned:
    """Return a cut of about so many edges that stands for the whole: what takes long grows with the edges."""
    count = len(cut.plan.exchanges)
    edges = sum(map(len, cut.plan.exchanges))
    taken = min(count, max(_FEWEST, count * most_edges // max(1, edges)))
    head = min(_MOST_HEAD, taken // 2) if taken < count else count
    tail = [head + (2 * k + 1) * (count - head) // (2 * (taken - head)) for k in range(taken - head)]
    factor = (count - head) / len(tail) if tail else 1.0
    weights = (1.0,) * head + (factor,) * len(tail) + (1.0,)
    return Thinned(_only(cut, [*range(head), *tail]), weights)


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
