"""Multicast of rows: edges of a source that carry nearly the same rows are merged into one edge."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fsd_inference.partitioning.plan import Edge, ExchangePlan

SLACK = 0.25
"""Maximum ratio of rows that targets receive without needing them to rows that they need.

Extra rows cost some unpacking, but each row that is sent once instead of twice saves its bytes, and each merged edge
saves a frame per step."""
_MAX_EDGES = 64
"""Edges of a source with more edges than this are not merged, because the search takes cubic time."""


def share_rows(plan: ExchangePlan, slack: float = SLACK) -> ExchangePlan:
    """Return the plan with edges merged if their targets need nearly the same rows.

    Parameters
    ----------
    plan : ExchangePlan
        Usually with one edge per (source, target) pair.
    slack : float
        For each merged edge, rows x targets is at most (1 + slack) times the number of (row, target) pairs of the edges
        that it replaces.
    """
    exchanges = []
    for exchange in plan.exchanges:
        edges: list[Edge] = []
        for _, of_source in groupby(exchange, key=lambda edge: edge.source):
            edges += sorted(_merged(list(of_source), slack), key=lambda edge: edge.targets)
        exchanges.append(tuple(edges))
    return ExchangePlan(plan.workers, tuple(exchanges))


def _merged(edges: list[Edge], slack: float) -> list[Edge]:
    """Repeatedly merge the two edges that share most rows, as long as a merge is within the slack."""
    if not 1 < len(edges) <= _MAX_EDGES:
        return edges
    rows = np.unique(np.concatenate([edge.rows for edge in edges]))
    wants = np.zeros((len(edges), rows.size), np.float32)  # which holds counts exactly and multiplies fast
    for i, edge in enumerate(edges):
        wants[i, np.searchsorted(rows, edge.rows)] = 1
    targets = np.array([len(edge.targets) for edge in edges])
    shared = np.rint(wants @ wants.T).astype(np.int64)
    sizes = shared.diagonal().copy()
    pairs = sizes * targets
    groups = [[i] for i in range(len(edges))]
    alive = np.ones(len(edges), np.bool_)

    def saved_by(a: int) -> NDArray[np.int64]:
        """Return the number of rows saved by merging `a` with each other edge; 0 if that exceeds the slack."""
        within = (sizes[a] + sizes - shared[a]) * (targets[a] + targets) <= (1 + slack) * (pairs[a] + pairs)
        return np.where(within & alive, shared[a], 0)

    saved = np.triu([saved_by(i) for i in range(len(edges))], 1)
    while True:
        a, b = divmod(int(saved.argmax()), len(edges))
        if saved[a, b] == 0:
            break
        np.maximum(wants[a], wants[b], out=wants[a])
        targets[a] += targets[b]
        pairs[a] += pairs[b]
        groups[a] += groups[b]
        alive[b] = False
        saved[b] = saved[:, b] = 0
        shared[a] = shared[:, a] = np.rint(wants @ wants[a])
        sizes[a] = shared[a, a]
        again = saved_by(a)
        saved[a, a + 1 :], saved[:a, a] = again[a + 1 :], again[:a]
    return [
        _joined([edges[i] for i in group], rows[found.astype(np.bool_)])
        for group, found, is_left in zip(groups, wants, alive, strict=True)
        if is_left
    ]


def _joined(edges: list[Edge], rows: NDArray[np.int32]) -> Edge:
    return Edge(edges[0].source, tuple(sorted(target for edge in edges for target in edge.targets)), rows)
