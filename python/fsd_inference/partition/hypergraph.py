"""`hypergraph`: layer by layer with Mt-KaHyPar, then sweeps over the layers with both neighbours known.

A row that is needed by the ranks T costs |T without its owner| sends. That is the connectivity, less one, of a net whose
pins are the row itself and the rows it feeds. One layer is partitioned at a time, its neighbours' owners being fixed
vertices (anchors), one a rank.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import mtkahypar
import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Network
from fsd_inference.partition.balance import capacity, row_weights
from fsd_inference.partition.block import runs
from fsd_inference.partition.contract import select
from fsd_inference.partition.exchange import needed
from fsd_inference.partition.neighbours import LayerProblem

_IMBALANCE = 0.03
_SWEEPS = 6
_WORTH_IT = 0.002  # a sweep that saves a smaller share of the sends is the last one


def hypergraph_owners(network: Network, workers: int, seed: int) -> tuple[NDArray[np.int32], ...]:
    """Minimize the rows sent."""
    if workers == 1:
        return tuple(np.zeros(width, np.int32) for width in network.widths[1:])
    owners: list[NDArray[np.int32]] = []
    for k, layer in enumerate(network):
        problem = LayerProblem.of(layer, workers, owners[k - 1] if k else None, None)
        owners.append(_partitioned(problem, seed))
    sends = _sends(network, owners, workers)
    for sweep in range(_SWEEPS):
        # Backward first: the forward pass chose each layer without knowing the next.
        layers = range(len(network)) if sweep % 2 else range(len(network) - 1, -1, -1)
        before = sends
        for k in layers:
            following = needed(network.layer(k + 1), owners[k + 1], workers) if k + 1 < len(network) else None
            problem = LayerProblem.of(network.layer(k), workers, owners[k - 1] if k else None, following)
            candidate = _partitioned(problem, seed + 1 + sweep)
            saved = problem.cost(owners[k]) - problem.cost(candidate)
            if saved >= 0:
                owners[k] = candidate
                sends -= saved
        if before - sends < _WORTH_IT * before:
            break
    return tuple(owners)


def _sends(network: Network, owners: list[NDArray[np.int32]], workers: int) -> int:
    """Return the rows sent in all."""
    sends = 0
    for k in range(1, len(network)):
        need = needed(network.layer(k), owners[k], workers)
        sends += int(need.sum() - need[np.arange(need.shape[0]), owners[k - 1]].sum())
    return sends


def _partitioned(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return owners for one layer, balanced."""
    pins, weights = _nets(problem)
    weight = row_weights(problem.layer)
    if not pins:
        return runs(weight, problem.workers)
    workers, groups, group_weight = problem.workers, problem.small.groups, problem.small.group_weight
    initializer, context = _mtkahypar()
    context.set_partitioning_parameters(workers, _IMBALANCE, mtkahypar.Objective.KM1)
    # Groups heavier than the slack may not fit within the limit; `balanced` splits them afterwards.
    limit = max(capacity(weight, workers), int(group_weight.sum()) // workers + int(group_weight.max()))
    limit = capacity(weight, workers) if groups >= workers * 4 else limit
    context.set_individual_target_block_weights([limit + 1] * workers)  # 1 for the anchor
    mtkahypar.set_seed(seed)
    graph = initializer.create_hypergraph(
        context, groups + workers, len(pins), pins, [*group_weight.tolist(), *[1] * workers], weights
    )
    graph.add_fixed_vertices([*[-1] * groups, *range(workers)], workers)
    blocks = np.array(graph.partition(context).get_partition()[:groups], np.int32)
    return problem.balanced(blocks[problem.small.group])


@cache
def _mtkahypar() -> tuple[Any, Any]:
    """Start Mt-KaHyPar once; one thread and a deterministic preset make equal seeds give equal partitions."""
    initializer = mtkahypar.initialize(1, False)
    context = initializer.context_from_preset(mtkahypar.PresetType.DETERMINISTIC)
    context.logging = False
    return initializer, context


def _nets(problem: LayerProblem) -> tuple[list[list[int]], list[int]]:
    """Return pins and weights of the nets: groups are vertices 0..groups-1, rank r's anchor is vertex groups + r."""
    small, workers = problem.small, problem.workers
    nets: list[list[int]] = []
    weights: list[int] = []
    # Inputs of the same class from the same owner are one net of that weight.
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
        # Rows of the same group that the same ranks want, again as one net; nothing can be saved if all or none do.
        packed = np.ascontiguousarray(np.packbits(problem.wanted, axis=1))
        _, first, kind = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        pairs, counts = np.unique(kind.reshape(-1) * small.groups + small.group, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            ranks = np.flatnonzero(problem.wanted[first[pair // small.groups]])
            if 0 < ranks.size < workers:
                nets.append([pair % small.groups, *(small.groups + ranks).tolist()])
                weights.append(count)
    return nets, weights
