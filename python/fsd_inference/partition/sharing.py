"""Sending rows that several ranks want once: edges of a source whose rows are nearly the same become one edge."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fsd_inference.partition.plan import Edge, ExchangePlan

SLACK = 0.25
"""Rows that a target gets without needing them, as a share of those it needs: they cost it some unpacking, while each
row that is sent once instead of twice saves its bytes, and each edge less a frame a step."""
_MOST_EDGES = 64
"""Sources with more edges keep them: the search takes time that grows with their cube."""


def share_rows(plan: ExchangePlan, slack: float = SLACK) -> ExchangePlan:
    """Return the plan with edges merged wherever their targets need nearly the same rows.

    Parameters
    ----------
    plan : ExchangePlan
        Usually one of an edge for each (source, target) pair.
    slack : float
        For each merged edge, rows x targets is at most (1 + slack) times the (row, target) pairs of the edges that it
        takes the place of.
    """
    exchanges = []
    for exchange in plan.exchanges:
        edges: list[Edge] = []
        for _, of_source in groupby(exchange, key=lambda edge: edge.source):
            edges += sorted(_merged(list(of_source), slack), key=lambda edge: edge.targets)
        exchanges.append(tuple(edges))
    return ExchangePlan(plan.workers, tuple(exchanges))


def _merged(edges: list[Edge], slack: float) -> list[Edge]:
    """Merge, as long as any merge is within the slack, the two edges that share most rows."""
    if not 1 < len(edges) <= _MOST_EDGES:
        return edges
    rows = np.unique(np.concatenate([edge.rows for edge in edges]))
    wants = np.array([np.isin(rows, edge.rows, assume_unique=True) for edge in edges], np.int32)
    targets = np.array([len(edge.targets) for edge in edges])
    pairs = wants.sum(axis=1) * targets
    groups = [[i] for i in range(len(edges))]
    while len(groups) > 1:
        shared = wants @ wants.T
        sizes = np.diag(shared)
        union = sizes[:, None] + sizes[None, :] - shared
        within = union * (targets[:, None] + targets[None, :]) <= (1 + slack) * (pairs[:, None] + pairs[None, :])
        saved = np.where(np.triu(within, 1), shared, 0)
        a, b = divmod(int(saved.argmax()), len(groups))
        if saved[a, b] == 0:
            break
        wants[a] |= wants[b]
        targets[a] += targets[b]
        pairs[a] += pairs[b]
        groups[a] += groups[b]
        wants, targets, pairs = (np.delete(array, b, axis=0) for array in (wants, targets, pairs))
        del groups[b]
    return [
        _joined([edges[i] for i in group], rows[found.astype(np.bool_)])
        for group, found in zip(groups, wants, strict=True)
    ]


def _joined(edges: list[Edge], rows: NDArray[np.int32]) -> Edge:
    return Edge(edges[0].source, tuple(sorted(target for edge in edges for target in edge.targets)), rows)
