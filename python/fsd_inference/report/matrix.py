"""The communication matrix: who sends how much to whom."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fsd_inference.report.figures import RunFigures


@dataclass(frozen=True, slots=True)
class Matrix:
    """Bytes from sources (rows) to targets (columns), each one rank or a block of ranks.

    A frame for several targets counts for each of them, although it is handed to the service once.
    """

    workers: int
    block: int
    cells: tuple[tuple[int, ...], ...]

    @property
    def largest(self) -> int:
        """The largest cell."""
        return max((cell for row in self.cells for cell in row), default=0)

    @property
    def total(self) -> int:
        """The sum of all cells."""
        return sum(map(sum, self.cells))

    def name(self, index: int) -> str:
        """Return what a row or column stands for: ``rank 3``, or ``ranks 16-31``."""
        first, last = index * self.block, min((index + 1) * self.block, self.workers) - 1
        return f"rank {first}" if first == last else f"ranks {first}-{last}"

    def largest_pair(self) -> tuple[int, int]:
        """Return row and column of the largest cell."""
        size = len(self.cells)
        return max(((i, j) for i in range(size) for j in range(size)), key=lambda at: self.cells[at[0]][at[1]])


def matrix(figures: RunFigures, most: int) -> Matrix | None:
    """Return the matrix with at most `most` rows, or None where no rank says to whom it sent."""
    told = [rank for rank in figures.ranks if rank.sent_to is not None]
    if not told:
        return None
    workers = figures.report.parts
    block = math.ceil(workers / most)
    size = math.ceil(workers / block)
    cells = [[0] * size for _ in range(size)]
    for rank in told:
        for sent in rank.sent_to or ():
            if sent.target < workers:
                cells[rank.rank // block][sent.target // block] += sent.bytes
    return Matrix(workers, block, tuple(map(tuple, cells)))
