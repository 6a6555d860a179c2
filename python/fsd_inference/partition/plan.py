"""The partition of a network's neurons, and the exchange plan that follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    workers: int
    owners: tuple[NDArray[np.int32], ...]


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
