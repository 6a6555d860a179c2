"""The cost of the partition of one layer, given the partitions of the layers before and after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.network import Layer
from fsd_inference.partitioning.balance import capacity, loads, row_weights
from fsd_inference.partitioning.contract import Contracted, contract
from fsd_inference.partitioning.exchange import needed


@dataclass(frozen=True, slots=True, eq=False)
class LayerProblem:
    """The problem of partitioning one layer, given the owners in the neighbouring layers.

    Attributes
    ----------
    layer : Layer
        The layer to partition.
    workers : int
        Number of workers P.
    before : ndarray of int32, shape (n_in,), or None
        Owner of each input row; None for the first layer, whose inputs cost nothing.
    wanted : ndarray of bool, shape (n_out, workers), or None
        Ranks that need each row for the next layer; None if they are not known yet, or there is no next layer.
    small : Contracted
        The layer contracted to groups and classes.
    """

    layer: Layer
    workers: int
    before: NDArray[np.int32] | None
    wanted: NDArray[np.bool_] | None
    small: Contracted

    @classmethod
    def of(
        cls, layer: Layer, workers: int, before: NDArray[np.int32] | None, wanted: NDArray[np.bool_] | None
    ) -> LayerProblem:
        """Create the problem, including the contraction of `layer`."""
        return cls(layer, workers, before, wanted, contract(layer))

    def needed(self, owners: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Return which inputs each rank needs, bool of shape (n_in, workers)."""
        return needed(self.layer, owners, self.workers)

    def cost(self, owners: NDArray[np.int32]) -> int:
        """Return the number of rows sent to this layer, minus rows that their owner itself needs for the next layer."""
        cost = 0
        if self.before is not None:
            need = self.needed(owners)
            cost += int(need.sum() - need[np.arange(need.shape[0]), self.before].sum())
        if self.wanted is not None:
            cost -= int(self.wanted[np.arange(owners.size), owners].sum())
        return cost

    def balanced(self, owners: NDArray[np.int32]) -> NDArray[np.int32]:
        """Move rows from overloaded to other ranks, cheapest groups first; return `owners` itself if it is balanced."""
        weight = row_weights(self.layer)
        limit = capacity(weight, self.workers)
        load = loads(owners, weight, self.workers)
        if load.max() <= limit:
            return owners
        owners = owners.copy()
        while load.max() > limit:
            rank = int(load.argmax())
            mine = np.flatnonzero((owners == rank) & (weight > 0))
            groups, first = np.unique(self.small.group[mine], return_index=True)
            # The least loaded rank has at most the even share, so there is room for any row and the loop terminates.
            room = load[None, :] + weight[mine[first], None] <= limit
            price = np.where(room, self._new_inputs(owners)[groups], np.inf)
            position, target = (int(i) for i in np.unravel_index(price.argmin(), price.shape))
            rows = mine[self.small.group[mine] == groups[position]]
            if self.wanted is not None:
                gain = self.wanted[rows, target].astype(np.int8) - self.wanted[rows, rank]
                rows = rows[np.argsort(-gain, kind="stable")]
            one = int(weight[rows[0]])  # rows of a group have the same columns, so the same weight
            count = min(rows.size, -((limit - int(load[rank])) // one), (limit - int(load[target])) // one)
            owners[rows[:count]] = target
            load[rank] -= count * one
            load[target] += count * one
        return owners

    def _new_inputs(self, owners: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the number of additional inputs that each rank would need for each group, shape (groups, workers)."""
        small = self.small
        have = self.needed(owners)
        if self.before is not None:
            have[np.arange(have.shape[0]), self.before] = True
        lacking = np.zeros((small.classes, self.workers), np.int64)
        np.add.at(lacking, small.column_class, ~have)
        new = np.zeros((small.groups, self.workers), np.int64)
        np.add.at(new, small.class_groups, np.repeat(lacking, np.diff(small.class_pointer), axis=0))
        return new
