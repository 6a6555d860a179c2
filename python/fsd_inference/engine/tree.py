"""The launch tree: rank r starts ranks r*b+1 .. r*b+b that are < P."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tree:
    """A launch tree of `workers` ranks with branching factor `branching`, both at least 1."""

    workers: int
    branching: int

    def parent(self, rank: int) -> int | None:
        """Return the rank that starts `rank`; None for rank 0, which the session starts."""
        return None if rank == 0 else (rank - 1) // self.branching

    def children(self, rank: int) -> range:
        """Return the ranks that `rank` starts, in ascending order."""
        first = rank * self.branching + 1
        return range(min(first, self.workers), min(first + self.branching, self.workers))

    @property
    def depth(self) -> int:
        """Number of starts from the session down to the deepest rank, including that of rank 0."""
        depth, rank = 1, self.workers - 1
        while rank > 0:
            rank = (rank - 1) // self.branching
            depth += 1
        return depth
