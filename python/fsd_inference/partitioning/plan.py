"""The partition of a network's neurons, and the exchange plan that follows from it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError, SettingError

PLAN_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Partition:
    """Who owns which neuron.

    Attributes
    ----------
    workers : int
        P.
    owners : tuple of ndarray of int32
        One array a layer 0..L-1: the rank that owns (computes) each of its output neurons. Inputs are owned by no
        one: every rank reads those it needs.

    Raises
    ------
    SettingError
        Fewer than one worker.
    InputError
        Owners that are not int32 vectors of ranks below `workers`.
    """

    workers: int
    owners: tuple[NDArray[np.int32], ...]

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SettingError(f"workers must be at least 1, not {self.workers}")
        for layer, owners in enumerate(self.owners):
            if owners.ndim != 1 or owners.dtype != np.int32:
                raise InputError(f"owners of layer {layer} must be a vector of int32, not {owners.dtype}")
            if owners.size and (owners.min() < 0 or owners.max() >= self.workers):
                raise InputError(f"owners of layer {layer} must be ranks 0..{self.workers - 1}")

    def rows(self, layer: int, rank: int) -> NDArray[np.int64]:
        """Return the neurons of `layer` that `rank` owns, ascending."""
        return np.flatnonzero(self.owners[layer] == rank)


@dataclass(frozen=True, slots=True)
class Edge:
    """Rows that one rank sends after a layer, as one stream of frames.

    Attributes
    ----------
    source : int
        The sending rank.
    targets : tuple of int
        The ranks that want rows of it, ascending; each may ignore rows it does not need.
    rows : ndarray of int32
        Global neurons of the layer, ascending, never empty.
    """

    source: int
    targets: tuple[int, ...]
    rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ExchangePlan:
    """The edges of the L-1 exchanges.

    Attributes
    ----------
    workers : int
        P.
    exchanges : tuple of tuple of Edge
        exchanges[k] follows layer k, k = 0..L-2; sorted by source, then targets. An edge's number, as frames carry
        it, is its position among the edges of the same source in the same exchange.
    """

    workers: int
    exchanges: tuple[tuple[Edge, ...], ...]

    def sends(self, layer: int) -> dict[int, list[Edge]]:
        """Return by source what is sent after `layer`, in the order of the edges' numbers; nothing after the last."""
        sends: dict[int, list[Edge]] = defaultdict(list)
        for edge in self.exchanges[layer] if layer < len(self.exchanges) else ():
            sends[edge.source].append(edge)
        return sends

    def receives(self, layer: int) -> dict[int, list[tuple[Edge, int]]]:
        """Return by target what comes before `layer`: (edge, its number), by source and number; nothing before 0."""
        receives: dict[int, list[tuple[Edge, int]]] = defaultdict(list)
        numbers: Counter[int] = Counter()
        for edge in self.exchanges[layer - 1] if layer > 0 else ():
            for target in edge.targets:
                receives[target].append((edge, numbers[edge.source]))
            numbers[edge.source] += 1
        return receives


@dataclass(frozen=True, slots=True)
class RankPlan:
    """What one rank's state machine must know of the plan: no weights, no rows.

    All attributes but `rank` and `workers` have one entry a layer 0..L-1.

    Attributes
    ----------
    rank, workers : int
        r and P.
    receives : tuple of tuple of (int, int)
        (source rank, edge number) of every edge that must come before the layer is computed.
    sends : tuple of tuple of tuple of int
        The target ranks of each edge sent after the layer, by edge number.
    boundary, interior : tuple of int
        Rows of the layer that this rank owns and that others need, and the other rows it owns.
    """

    rank: int
    workers: int
    receives: tuple[tuple[tuple[int, int], ...], ...]
    sends: tuple[tuple[tuple[int, ...], ...], ...]
    boundary: tuple[int, ...]
    interior: tuple[int, ...]

    @property
    def layers(self) -> int:
        """L."""
        return len(self.receives)


def rank_plans(partition: Partition, plan: ExchangePlan) -> tuple[RankPlan, ...]:
    """Return every rank's view of the plan, without weights."""
    workers, last = partition.workers, len(partition.owners) - 1
    receives: list[list[tuple[tuple[int, int], ...]]] = [[] for _ in range(workers)]
    sends: list[list[tuple[tuple[int, ...], ...]]] = [[] for _ in range(workers)]
    boundary = np.zeros((workers, last + 1), np.int64)
    owned = np.zeros((workers, last + 1), np.int64)
    pairs: list[list[tuple[int, int]]] = [[] for _ in range(workers)]  # (source, number), each kept once for all
    incoming: list[list[tuple[int, int]]] = [[] for _ in range(workers)]
    for layer, owners in enumerate(partition.owners):
        edges = plan.exchanges[layer] if layer < last else ()
        for rank in range(workers):
            receives[rank].append(tuple(incoming[rank]))
        incoming = [[] for _ in range(workers)]
        begin = np.searchsorted([edge.source for edge in edges], np.arange(workers + 1)).tolist()
        for rank in range(workers):
            mine, known = edges[begin[rank] : begin[rank + 1]], pairs[rank]
            known += [(rank, number) for number in range(len(known), len(mine))]
            sends[rank].append(tuple([edge.targets for edge in mine]))
            for pair, edge in zip(known, mine, strict=False):
                for target in edge.targets:
                    incoming[target].append(pair)
        if edges:
            is_sent = np.zeros(owners.size, np.bool_)
            is_sent[np.concatenate([edge.rows for edge in edges])] = True
            boundary[:, layer] = np.bincount(owners[is_sent], minlength=workers)
        owned[:, layer] = np.bincount(owners, minlength=workers)
    return tuple(
        RankPlan(
            r,
            workers,
            tuple(receives[r]),
            tuple(sends[r]),
            tuple(boundary[r].tolist()),
            tuple((owned[r] - boundary[r]).tolist()),
        )
        for r in range(workers)
    )


def plan_digest(network_digest: bytes, partition: Partition, plan: ExchangePlan) -> bytes:
    """Return 16 bytes that differ wherever frames could: other weights, owners, edges or rows of edges."""
    digest = hashlib.sha256(b"fsd-plan-1" + network_digest + np.int64(partition.workers).tobytes())
    for owners in partition.owners:
        digest.update(np.int64(owners.size).tobytes())
        digest.update(owners.astype("<i4").tobytes())
    for exchange in plan.exchanges:
        digest.update(np.int64(len(exchange)).tobytes())
        for edge in exchange:
            head = (edge.source, len(edge.targets), *edge.targets, edge.rows.size)
            digest.update(np.array(head, "<i8").tobytes())
            digest.update(edge.rows.astype("<i4").tobytes())
    return digest.digest()[:PLAN_DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class PlanVolumes:
    """What a partition makes the workers exchange.

    Attributes
    ----------
    row_sends : int
        (row, target) pairs, summed over the L-1 exchanges.
    largest_sender, largest_receiver : tuple of int
        Per exchange: the most rows that one rank sends, and receives.
    imbalance : float
        The largest rank's connections over the even share, the worst layer.
    seconds : float
        Time the partitioner took.
    """

    row_sends: int
    largest_sender: tuple[int, ...]
    largest_receiver: tuple[int, ...]
    imbalance: float
    seconds: float
