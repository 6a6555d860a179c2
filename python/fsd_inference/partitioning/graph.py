"""The `graph` partitioner: METIS on the bipartite graph of rows and columns, layer by layer."""

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
    """Return the owner of each neuron, minimizing the number of cut connections.

    This only approximates the volume of the exchange: METIS counts each cut connection, but a row that is sent once
    serves all connections of the target.
    """
    owners: list[NDArray[np.int32]] = []
    for k, layer in enumerate(network):
        owners.append(graph_partitioned(LayerProblem.of(layer, workers, owners[k - 1] if k else None, None), seed))
    return tuple(owners)


def graph_partitioned(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return balanced owners of the rows of one layer."""
    return problem.balanced(_placed(problem, _parts(problem, seed)))


def _parts(problem: LayerProblem, seed: int) -> NDArray[np.int32]:
    """Return the part of each row. Vertices are groups and classes; the weight of an edge is the size of its class."""
    small = problem.small
    if problem.workers == 1 or small.class_groups.size == 0:
        return runs(row_weights(problem.layer), problem.workers)
    if np.count_nonzero(small.group_weight) < 2 * problem.workers:
        # Too few for METIS, which prints to standard output if a part stays empty.
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
    """Assign parts to ranks so that as many of the needed inputs as possible are owned by the same rank."""
    if problem.before is None:
        return parts
    need = problem.needed(parts)
    local = np.zeros((problem.workers, problem.workers), np.int64)
    np.add.at(local, problem.before, need)  # owner x part
    ranks, placed = linear_sum_assignment(local, maximize=True)
    rank_of = np.empty(problem.workers, np.int32)
    rank_of[placed] = ranks
    return rank_of[parts]
