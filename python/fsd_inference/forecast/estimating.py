"""Estimates of a network's exchange for numbers of workers for which it was not partitioned, from its other cuts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.forecast.work import Work
from fsd_inference.network import Network
from fsd_inference.partitioning.plan import Edge, ExchangePlan

STRETCH = 2
"""Number of layers that are partitioned to estimate from if no cut of the whole network is known."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Average amounts of an exchange of a partitioned network.

    Attributes
    ----------
    workers : int
        Number of workers P.
    rows : float
        (row, target) pairs sent, per neuron of the sending layer.
    partners : float
        Ranks to which a rank sends.
    """

    workers: int
    rows: float
    partners: float

    @classmethod
    def of(cls, plan: ExchangePlan, inputs: Sequence[int]) -> Exchanged:
        """Return the averages of a plan; `inputs` are the numbers of neurons that each layer reads."""
        sent = sum(edge.rows.size * len(edge.targets) for exchange in plan.exchanges for edge in exchange)
        pairs = sum(len(edge.targets) for exchange in plan.exchanges for edge in exchange)
        return cls(
            plan.workers,
            max(sent, 1) / sum(inputs[1:]),
            max(1.0, pairs / len(plan.exchanges) / plan.workers),
        )


def stretch(network: Network) -> Network:
    """Return `STRETCH` layers from the middle of a network, or all if it has fewer."""
    first = max(0, len(network) // 2 - STRETCH // 2)
    return Network([network.layer(k) for k in range(first, min(len(network), first + STRETCH))])


def interpolated(known: Sequence[Exchanged], workers: int, connections: float) -> Exchanged:
    """Interpolate what P workers exchange, log-log, from what other numbers of workers exchange.

    Parameters
    ----------
    known : sequence of Exchanged
        Exchanges of the network's known cuts; at least one.
    workers : int
        Number of workers P.
    connections : float
        Mean number of connections per neuron, which bounds what can be exchanged.
    """
    known = sorted({one.workers: one for one in known}.values(), key=lambda one: one.workers)
    rows = math.exp(_line([(one.workers, one.rows) for one in known], workers))
    partners = math.exp(_line([(one.workers, one.partners) for one in known], workers))
    # Upper bound: with neurons assigned at random, this many other ranks need each neuron.
    most = workers * (1 - (1 - 1 / workers) ** connections) * (1 - 1 / workers)
    return Exchanged(workers, min(rows, most), min(max(1.0, partners), workers - 1))


def _line(points: Sequence[tuple[int, float]], workers: int) -> float:
    """Return the logarithm at `workers` by piecewise linear log-log interpolation, extrapolated beyond the ends."""
    x, y = (np.log(np.array(values, np.float64)) for values in zip(*points, strict=True))
    if x.size == 1:
        return float(y[0])
    at = math.log(workers)
    right = int(np.clip(np.searchsorted(x, at), 1, x.size - 1))
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float(y[right - 1] + slope * (at - x[right - 1]))


def estimated_plan(exchanged: Exchanged, inputs: Sequence[int], seed: int = 0) -> ExchangePlan:
    """Return a synthetic plan with these averages: each rank sends equally many random rows to the next ranks."""
    workers = exchanged.workers
    rng = np.random.default_rng(seed)
    made: dict[int, tuple[Edge, ...]] = {}
    for width in inputs[1:]:
        if width in made:
            continue
        partners = max(1, min(workers - 1, round(exchanged.partners)))
        rows = max(1, min(width, round(exchanged.rows * width / workers / partners)))
        drawn: NDArray[np.int32] = np.sort(rng.choice(width, rows, replace=False)).astype(np.int32)
        made[width] = tuple(
            Edge(source, (target,), drawn)
            for source in range(workers)
            for target in sorted((source + step) % workers for step in range(1, partners + 1))
        )
    return ExchangePlan(workers, tuple(made[width] for width in inputs[1:]))


def estimated_work(whole: Work, workers: int) -> Work:
    """Return the work of P ranks that share the network's connections and bytes evenly."""
    connections = np.repeat(-(-whole.connections.sum(axis=1, keepdims=True) // workers), workers, axis=1)
    shard = math.ceil(int(whole.shard_bytes.sum()) / workers)
    return Work(connections, whole.inputs, np.full(workers, shard, np.int64))
