"""Rules that choose the connections of a layer to keep: the most salient ones, or n of every m along each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Mask: TypeAlias = NDArray[np.bool_]


class Rule(Protocol):
    """A rule by which connections are kept."""

    def keep(self, saliency: NDArray[Any], weights: sparse.csr_array) -> Mask:
        """Return which connections to keep.

        Parameters
        ----------
        saliency : ndarray of float, shape (connections,)
            How much is lost with each connection; at least 0. Of equal ones, the first is kept.
        weights : csr_array, shape (n_out, n_in)
            The connections, with sorted columns.
        """

    def steps(self, connections: int, rounds: int) -> Sequence[Rule]:
        """Return `rounds` rules, or fewer, that lead from a number of connections to this one.

        The first ones cut most: little is lost as long as many are left.
        """


@dataclass(frozen=True, slots=True)
class Largest:
    """Keep a number of connections of the layer, those with the largest saliency."""

    count: int

    def keep(self, saliency: NDArray[Any], weights: sparse.csr_array) -> Mask:  # noqa: ARG002 - the rule's interface
        """Return which connections to keep; see `Rule`."""
        return largest(saliency, self.count)

    def steps(self, connections: int, rounds: int) -> Sequence[Rule]:
        """Return `rounds` rules; see `Rule`."""
        shares = _shares(self.count / max(1, connections), rounds)
        return [*(Largest(round(connections * share)) for share in shares), self]


@dataclass(frozen=True, slots=True)
class OfEvery:
    """Keep at most `kept` of every `group` consecutive inputs of a neuron; groups start at input 0."""

    kept: int
    group: int

    def keep(self, saliency: NDArray[Any], weights: sparse.csr_array) -> Mask:
        """Return which connections to keep; see `Rule`."""
        rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        groups = rows * -(-weights.shape[1] // self.group) + weights.indices // self.group
        order = np.lexsort((-saliency, groups))  # stable, and does not move groups, which ascend
        place = np.arange(groups.size) - np.searchsorted(groups, groups)
        mask = np.zeros(groups.size, bool)
        mask[order[place < self.kept]] = True
        return mask

    def steps(self, connections: int, rounds: int) -> Sequence[Rule]:  # noqa: ARG002 - the rule's interface
        """Return a rule for each number of kept inputs on the way, at most `rounds`; see `Rule`."""
        kept = {round(self.group * share) for share in _shares(self.kept / self.group, rounds)} | {self.kept}
        return [OfEvery(count, self.group) for count in sorted(kept, reverse=True)]


def largest(values: NDArray[Any], count: int) -> Mask:
    """Return a mask of the `count` largest values; of equal ones, the first are taken."""
    if count >= values.size:
        return np.ones(values.size, bool)
    if count == 0:
        return np.zeros(values.size, bool)
    least = np.partition(values, values.size - count)[values.size - count]
    mask: Mask = values > least
    mask[np.flatnonzero(values == least)[: count - np.count_nonzero(mask)]] = True
    return mask


def _shares(last: float, rounds: int) -> list[float]:
    """Return the shares of connections that are left after each round but the last, which leaves `last`."""
    return [last ** (k / rounds) ** 0.5 for k in range(1, rounds)]
