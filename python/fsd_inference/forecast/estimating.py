"""The exchange of a network that was not cut for so many workers, from what is known of other cuts of it."""

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
"""Layers that are cut where nothing is known of the network."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What an exchange of a cut carries on average.

    Attributes
    ----------
    workers : int
        P.
    rows : float
        (row, target) pairs, for each neuron of the sending layer.
    partners : float
        Ranks to which a rank sends.
    """

    workers: int
    rows: float
    partners: float

    @classmethod
    def of(cls, plan: ExchangePlan, inputs: Sequence[int]) -> Exchanged:
        """Return that of a plan; `inputs` are the neurons that each layer reads."""
        sent = sum(edge.rows.size * len(edge.targets) for exchange in plan.exchanges for edge in exchange)
        pairs = sum(len(edge.targets) for exchange in plan.exchanges for edge in exchange)
        return cls(
            plan.workers,
            max(sent, 1) / sum(inputs[1:]),
            max(1.0, pairs / len(plan.exchanges) / plan.workers),
        )


def stretch(network: Network) -> Network:
    """Return some layers from the middle of a network."""
    first = max(0, len(network) // 2 - STRETCH // 2)
    return Network([network.layer(k) for k in range(first, min(len(network), first + STRETCH))])


def interpolated(known: Sequence[Exchanged], workers: int, connections: float) -> Exchanged:
    """Return what P workers exchange, between what is known of others: in proportion, by logarithms.

    Parameters
    ----------
    known : sequence of Exchanged
        At least one.
    workers : int
        P.
    connections : float
        Of a neuron: bounds what can be exchanged.
    """
    known = sorted({one.workers: one for one in known}.values(), key=lambda one: one.workers)
    rows = math.exp(_line([(one.workers, one.rows) for one in known], workers))
    partners = math.exp(_line([(one.workers, one.partners) for one in known], workers))
    # Of owners drawn at random, each neuron is wanted by so many ranks, all but one of them others.
    most = workers * (1 - (1 - 1 / workers) ** connections) * (1 - 1 / workers)
    return Exchanged(workers, min(rows, most), min(max(1.0, partners), workers - 1))


def _line(points: Sequence[tuple[int, float]], workers: int) -> float:
    """Return the logarithm at `workers` on straight lines through the logarithms, the outer ones going on."""
    x, y = (np.log(np.array(values, np.float64)) for values in zip(*points, strict=True))
    if x.size == 1:
        return float(y[0])
    at = math.log(workers)
    right = int(np.clip(np.searchsorted(x, at), 1, x.size - 1))
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float(y[right - 1] + slope * (at - x[right - 1]))


def estimated_plan(exchanged: Exchanged, inputs: Sequence[int], seed: int = 0) -> ExchangePlan:
    """Return a plan that carries as much: each rank sends equally many rows to the ranks that follow it."""
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
    """Return the work of P ranks that share evenly."""
    connections = np.repeat(-(-whole.connections.sum(axis=1, keepdims=True) // workers), workers, axis=1)
    shard = math.ceil(int(whole.shard_bytes.sum()) / workers)
    return Work(connections, whole.inputs, np.full(workers, shard, np.int64))
