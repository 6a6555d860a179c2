"""The communication matrix: the bytes sent between each pair of ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fsd_inference.report.figures import RunFigures


@dataclass(frozen=True, slots=True)
class Matrix:
    """The bytes sent from sources (rows) to targets (columns), each of them one rank or a block of ranks.

    A frame for several targets counts for each of them, although it is sent to the service only once.

    Attributes
    ----------
    workers : int
        P.
    block : int
        Ranks per row and per column.
    cells : tuple of tuple of int
        Bytes by source and target.
    """

    workers: int
    block: int
    cells: tuple[tuple[int, ...], ...]

    @property
    def largest(self) -> int:
        """Bytes of the largest cell."""
        return max((cell for row in self.cells for cell in row), default=0)

    @property
    def total(self) -> int:
        """Total bytes of all cells."""
        return sum(map(sum, self.cells))

    def name(self, index: int) -> str:
        """Return the name of a row or column: ``rank 3``, or ``ranks 16-31``."""
        first, last = index * self.block, min((index + 1) * self.block, self.workers) - 1
        return f"rank {first}" if first == last else f"ranks {first}-{last}"

    def largest_pair(self) -> tuple[int, int]:
        """Return the row and the column of the largest cell."""
        size = len(self.cells)
        return max(((i, j) for i in range(size) for j in range(size)), key=lambda at: self.cells[at[0]][at[1]])


def matrix(figures: RunFigures, most: int) -> Matrix | None:
    """Return the matrix with at most `most` rows, or None if no rank reports the targets of its sends."""
    senders = [rank for rank in figures.ranks if rank.sent_to is not None]
    if not senders:
        return None
    workers = figures.report.parts
    block = math.ceil(workers / most)
    size = math.ceil(workers / block)
    cells = [[0] * size for _ in range(size)]
    for rank in senders:
        for sent in rank.sent_to or ():
            if sent.target < workers:
                cells[rank.rank // block][sent.target // block] += sent.bytes
    return Matrix(workers, block, tuple(map(tuple, cells)))
