"""A partitioned network as the planner uses it, and a smaller sample of its layers that represents the whole."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import ExchangePlan

_MOST_HEAD = 8
"""Maximum number of leading exchanges that are all kept, because samples die (become all zero) in the first layers."""
_FEWEST = 4
"""Minimum number of exchanges kept in total."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A network partitioned for P workers, with the sizes of what they exchange.

    Attributes
    ----------
    plan : ExchangePlan
        The rows that ranks exchange.
    work : Work
        The connections and shard bytes of each rank.
    payloads : Payloads
        Sizes of what the edges carry, for the batch as one micro-batch.
    is_estimated : bool
        Whether the exchange was estimated instead of computed by partitioning the network.
    """

    plan: ExchangePlan
    work: Work
    payloads: Payloads
    is_estimated: bool = False

    @property
    def workers(self) -> int:
        """Number of workers P."""
        return self.plan.workers


@dataclass(frozen=True, slots=True)
class Thinned:
    """A sample of a cut's layers, with weights, that represents the whole cut.

    Attributes
    ----------
    cut : Cut
        The first exchanges, a sample of the others, and the last layer.
    weights : tuple of float
        Number of layers that each layer of `cut` represents.
    """

    cut: Cut
    weights: tuple[float, ...]

    @property
    def exchange_weights(self) -> tuple[float, ...]:
        """Number of exchanges that each exchange of `cut` represents."""
        return self.weights[:-1]


def thin(cut: Cut, most_edges: int) -> Thinned:
    """Return a weighted sample of a cut with about `most_edges` edges: the planner's time grows with their number."""
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
    # A layer's live samples are those after the layer before it, which the sample may leave out.
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
