"""`graph`: layer by layer with METIS on the graph of rows and columns."""

from __future__ import annotations

import numpy as np
import pymetis
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from fsd_inference.network import Network
from fsd_inference.partitioning.balance import heaviest_first, row_weights
from fsd_inference.partitioning.block import runs
from fsd_inference.partitioning.neighbours import LayerProblem


def partition_owners(network: Network, workers: int, seed: int) -> tuple[NDArray[np.int32], ...]:
    """Cut few connections: METIS counts each cut connection, where a row sent once serves many."""
    owners: list[NDArray[np.int32]] = []
    for k, layer in enumerate(network):
        owners.append(graph_partitioned(LayerProblem.of(layer, workers, owners[k - 1] if k else None, None), seed))
    return tuple(owners)


def graph_partitioned(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return owners for one layer, balanced."""
    return problem.balanced(_placed(problem, _parts(problem, seed)))


def _parts(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return the part of each row: groups and classes are vertices, an edge weighs the columns of its class."""
    small = problem.small
    if problem.workers == 1 or small.class_groups.size == 0:
        return runs(row_weights(problem.layer), problem.workers)
    if np.count_nonzero(small.group_weight) < 2 * problem.workers:
        # Too few for METIS, which complains on standard output when a part stays empty.
        return heaviest_first(small.group_weight, problem.workers)[small.group]
    classes = np.repeat(np.arange(small.classes), np.diff(small.class_pointer))
    tails = np.concatenate([small.class_groups, small.groups + classes])
    heads = np.concatenate([small.groups + classes, small.class_groups])
    order = np.argsort(tails, kind="stable")
    weight = np.bincount(small.column_class, minlength=small.classes)[classes]
    starts = np.concatenate([[0], np.cumsum(np.bincount(tails, minlength=small.groups + small.classes))])
    _, parts = pymetis.part_graph(
        problem.workers,
        pymetis.CSRAdjacency(starts.tolist(), heads[order].tolist()),
        vweights=[*small.group_weight.tolist(), *[0] * small.classes],
        eweights=np.tile(weight, 2)[order].tolist(),
        options=pymetis.Options(seed=seed),
    )
    return np.array(parts[: small.groups], np.int32)[small.group]


def _placed(problem: LayerProblem, parts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each part to a rank so that as many of the inputs it needs as possible are there already."""
    if problem.before is None:
        return parts
    need = problem.needed(parts)
    local = np.zeros((problem.workers, problem.workers), np.int64)
    np.add.at(local, problem.before, need)  # owner x part
    ranks, placed = linear_sum_assignment(local, maximize=True)
    rank_of = np.empty(problem.workers, np.int32)
    rank_of[placed] = ranks
    return rank_of[parts]
