"""The partition of the neurons of a network, and the plan by which ranks exchange activations."""

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
    """The assignment of neurons to ranks.

    Attributes
    ----------
    workers : int
        Number of workers P.
    owners : tuple of ndarray of int32
        For each layer 0..L-1 the rank that owns (computes) each of its output neurons. Inputs have no owner: each rank
        reads those that it needs.

    Raises
    ------
    SettingError
        There are fewer than one worker.
    InputError
        The owners are not int32 vectors of ranks below `workers`.
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
        """Return the neurons of `layer` that `rank` owns, in ascending order."""
        return np.flatnonzero(self.owners[layer] == rank)


@dataclass(frozen=True, slots=True)
class Edge:
    """A set of rows that one rank sends to one or more others after a layer, as one stream of frames.

    Attributes
    ----------
    source : int
        The sending rank.
    targets : tuple of int
        The receiving ranks, ascending; a target ignores rows that it does not need.
    rows : ndarray of int32
        Global indices of neurons of the layer, ascending, never empty.
    """

    source: int
    targets: tuple[int, ...]
    rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class ExchangePlan:
    """The exchanges of rows between consecutive layers, L-1 in total.

    Attributes
    ----------
    workers : int
        Number of workers P.
    exchanges : tuple of tuple of Edge
        exchanges[k] follows layer k, k = 0..L-2; edges are sorted by source, then targets. The number of an edge, which
        frames carry, is its position among the edges of the same source in the same exchange.
    """

    workers: int
    exchanges: tuple[tuple[Edge, ...], ...]

    def sends(self, layer: int) -> dict[int, list[Edge]]:
        """Return the edges after `layer` by source, ordered by their number; none after the last layer."""
        sends: dict[int, list[Edge]] = defaultdict(list)
        for edge in self.exchanges[layer] if layer < len(self.exchanges) else ():
            sends[edge.source].append(edge)
        return sends

    def receives(self, layer: int) -> dict[int, list[tuple[Edge, int]]]:
        """Return (edge, number) pairs before `layer` by target, ordered by source and number; none before layer 0."""
        receives: dict[int, list[tuple[Edge, int]]] = defaultdict(list)
        numbers: Counter[int] = Counter()
        for edge in self.exchanges[layer - 1] if layer > 0 else ():
            for target in edge.targets:
                receives[target].append((edge, numbers[edge.source]))
            numbers[edge.source] += 1
        return receives


@dataclass(frozen=True, slots=True)
class RankPlan:
    """The view of the exchange plan that the state machine of one rank needs, without weights and rows.

    All attributes except `rank` and `workers` have one entry per layer 0..L-1.

    Attributes
    ----------
    rank : int
        The rank r.
    workers : int
        Number of workers P.
    receives : tuple of tuple of (int, int)
        (source rank, edge number) of each edge that must arrive before the layer can be computed.
    sends : tuple of tuple of tuple of int
        Target ranks of each edge that is sent after the layer, by edge number.
    boundary : tuple of int
        Number of rows of the layer that this rank owns and sends to other ranks.
    interior : tuple of int
        Number of the other rows that this rank owns.
    """

    rank: int
    workers: int
    receives: tuple[tuple[tuple[int, int], ...], ...]
    sends: tuple[tuple[tuple[int, ...], ...], ...]
    boundary: tuple[int, ...]
    interior: tuple[int, ...]

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return len(self.receives)


def rank_plans(partition: Partition, plan: ExchangePlan) -> tuple[RankPlan, ...]:
    """Return the `RankPlan` of each rank."""
    workers, last = partition.workers, len(partition.owners) - 1
    receives: list[list[tuple[tuple[int, int], ...]]] = [[] for _ in range(workers)]
    sends: list[list[tuple[tuple[int, ...], ...]]] = [[] for _ in range(workers)]
    boundary = np.zeros((workers, last + 1), np.int64)
    owned = np.zeros((workers, last + 1), np.int64)
    pairs: list[list[tuple[int, int]]] = [[] for _ in range(workers)]  # (source, number), shared by all layers
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
    """Return a digest of 16 bytes over everything that determines frames: weights, owners, edges and their rows."""
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
    """Volumes of the exchange that a partition causes, and its quality.

    Attributes
    ----------
    row_sends : int
        Number of (row, target) pairs, summed over the L-1 exchanges.
    largest_sender, largest_receiver : tuple of int
        Maximum number of rows that one rank sends and receives, respectively, in each exchange.
    imbalance : float
        Ratio of the connections of the most loaded rank to the mean, in the least balanced layer.
    seconds : float
        Run time of the partitioner in seconds.
    """

    row_sends: int
    largest_sender: tuple[int, ...]
    largest_receiver: tuple[int, ...]
    imbalance: float
    seconds: float
