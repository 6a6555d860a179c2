"""The `hypergraph` partitioner: Mt-KaHyPar layer by layer, then sweeps that take both neighbouring layers into account.

A row that the set of ranks T needs costs |T without its owner| sends. That is the connectivity minus one of a net whose
pins are the row itself and the rows that depend on it. One layer is partitioned at a time; the owners of its neighbours
are fixed vertices (anchors), one per rank. The partition of METIS is used if it costs less, which is often the case for
heavy groups or many ranks.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mtkahypar
import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.partitioning.balance import capacity, heaviest_first, row_weights
from fsd_inference.partitioning.block import runs
from fsd_inference.partitioning.contract import select
from fsd_inference.partitioning.exchange import needed
from fsd_inference.partitioning.graph import graph_partitioned
from fsd_inference.partitioning.neighbours import LayerProblem

_IMBALANCE = 0.03
_SWEEPS = 6
_TRIAL_LAYERS = 8  # number of layers after which an unprofitable sweep is abandoned
_MAX_PINS = 100_000  # with more pins Mt-KaHyPar would take minutes per layer, so METIS is used instead
_MIN_SAVING = 0.002  # a sweep that saves a smaller fraction of the sends is the last one


def partition_owners(network: Network, workers: int, seed: int) -> tuple[NDArray[np.int32], ...]:
    """Return the owner of each neuron, minimizing the number of rows sent."""
    if workers == 1:
        return tuple(np.zeros(width, np.int32) for width in network.widths[1:])
    owners: list[NDArray[np.int32]] = []
    sends = 0
    for k, layer in enumerate(network):
        problem = LayerProblem.of(layer, workers, owners[k - 1] if k else None, None)
        owners.append(_partitioned(problem, seed))
        sends += problem.cost(owners[k])
    for sweep in range(1, _SWEEPS + 1):
        # Backward first: the initial forward pass partitioned each layer without knowing the next.
        min_saving = _MIN_SAVING * sends
        saved = _sweep(network, owners, workers, backward=sweep % 2 == 1, seed=seed + sweep, min_saving=min_saving)
        sends -= saved
        if saved < min_saving:
            break
    return tuple(owners)


def _sweep(
    network: Network, owners: list[NDArray[np.int32]], workers: int, *, backward: bool, seed: int, min_saving: float
) -> int:
    """Repartition each layer given both neighbours, keep results that are not worse, and return the saved sends."""
    saved = 0
    order = range(len(network))
    for done, k in enumerate(reversed(order) if backward else order):
        if done == _TRIAL_LAYERS and saved < min_saving * _TRIAL_LAYERS / len(network):
            break
        following = needed(network.layer(k + 1), owners[k + 1], workers) if k + 1 < len(network) else None
        problem = LayerProblem.of(network.layer(k), workers, owners[k - 1] if k else None, following)
        candidate = _partitioned(problem, seed)
        gain = problem.cost(owners[k]) - problem.cost(candidate)
        if gain >= 0:
            owners[k] = candidate
            saved += gain
    return saved


def _partitioned(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return balanced owners of the rows of one layer."""
    workers, small = problem.workers, problem.small
    if small.class_groups.size > _MAX_PINS:
        return graph_partitioned(problem, seed)
    nets, weights = _nets(problem)
    if not nets:
        return runs(row_weights(problem.layer), workers)
    initializer, context = _mtkahypar()
    context.set_partitioning_parameters(workers, _IMBALANCE, mtkahypar.Objective.KM1)
    limit = capacity(row_weights(problem.layer), workers)
    # Groups may be too heavy to fit within the limit; `balanced` splits some of them afterwards.
    limit = max(limit, int(np.bincount(heaviest_first(small.group_weight, workers), small.group_weight).max()))
    context.set_individual_target_block_weights([limit + 1] * workers)  # 1 for the anchor
    mtkahypar.set_seed(seed)
    graph = initializer.create_hypergraph(
        context, small.groups + workers, len(nets), nets, [*small.group_weight.tolist(), *[1] * workers], weights
    )
    graph.add_fixed_vertices([*[-1] * small.groups, *range(workers)], workers)
    blocks = np.array(graph.partition(context).get_partition()[: small.groups], np.int32)
    return min(graph_partitioned(problem, seed), problem.balanced(blocks[small.group]), key=problem.cost)


@cache
def _mtkahypar() -> tuple[Any, Any]:
    """Initialize Mt-KaHyPar once, with one thread and a deterministic preset: equal seeds give equal partitions."""
    initializer = mtkahypar.initialize(1, False)
    context = initializer.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    context.logging = False
    return initializer, context


def _nets(problem: LayerProblem) -> tuple[list[list[int]], list[int]]:
    """Return pins and weights of the nets; vertex v < groups is a group, vertex groups + r the anchor of rank r."""
    small, workers = problem.small, problem.workers
    nets: list[list[int]] = []
    weights: list[int] = []
    # Inputs of the same class and owner form one net, weighted by their number.
    if problem.before is None:
        kinds, counts = np.unique(small.column_class, return_counts=True)
        anchors: list[list[int]] = [[]] * kinds.size
    else:
        kinds, counts = np.unique(small.column_class * workers + problem.before, return_counts=True)
        anchors = (small.groups + kinds % workers).reshape(-1, 1).tolist()
        kinds //= workers
    pointer, pins = select(small.class_pointer, small.class_groups, kinds)
    flat, ends = pins.tolist(), pointer.tolist()
    for start, end, anchor, count in zip(ends, ends[1:], anchors, counts.tolist(), strict=False):
        net = flat[start:end] + anchor
        if len(net) > 1:
            nets.append(net)
            weights.append(count)
    if problem.wanted is not None:
        # Rows of the same group that the same ranks need form one net; the cost is constant if all or no ranks do.
        packed = np.ascontiguousarray(np.packbits(problem.wanted, axis=1))
        _, first, kind = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        pairs, counts = np.unique(kind.reshape(-1) * small.groups + small.group, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            ranks = np.flatnonzero(problem.wanted[first[pair // small.groups]])
            if 0 < ranks.size < workers:
                nets.append([pair % small.groups, *(small.groups + ranks).tolist()])
                weights.append(count)
    return nets, weights
