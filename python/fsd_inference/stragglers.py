"""Detection of stragglers: ranks that compute each layer much slower than the others, which then wait for them.

The plan gives all ranks nearly the same number of connections, so that a rank that takes several times as long as the
median has a slow or shared processor. The rule is the same while a run goes on and for the reports of one that has
ended.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from heapq import merge
from statistics import median
from typing import NamedTuple

from fsd_inference.rank_report import RankReport

PACE_S = 1.0
"""Interval in seconds at which a rank tells its pace, and at which paces are compared."""
_FACTOR = 3.0
"""Ratio to the median of the other ranks from which a rank is a straggler."""
_LEAST_S = 5.0
_LEAST_LAYERS = 4
"""A rank's pace is taken over at least so many seconds and layers."""
_SHARE = 0.5
"""Part of that time that a straggler computes at least: one that waits for others does not hold them up."""


class Pace(NamedTuple):
    """How far a rank was at a time: its completed layers, and the seconds that it computed, packed and unpacked."""

    at: float
    rank: int
    layers: int
    busy_s: float


class Straggler(NamedTuple):
    """A rank that is `factor` times slower than the median of the others, from `layer` on."""

    rank: int
    factor: float
    layer: int

    def __str__(self) -> str:
        return (
            f"rank {self.rank} computes {self.factor:.1f} times slower than the median of the other ranks since layer "
            f"{self.layer}"
        )


class Paces:
    """The paces of the ranks of a run, from which stragglers are found one by one.

    Parameters
    ----------
    workers : int
        Number of ranks.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._known: defaultdict[int, deque[Pace]] = defaultdict(deque)
        self._named: set[int] = set()
        self._due = 0.0

    def note(self, pace: Pace) -> Straggler | None:
        """Take a rank's pace, in order of time; return a straggler that was not returned before, if there is one."""
        known = self._known[pace.rank]
        known.append(pace)
        while len(known) > 1 and self._is_base(known[1], pace):
            known.popleft()
        if pace.at < self._due:
            return None
        self._due = pace.at + PACE_S
        return self._compare()

    @staticmethod
    def _is_base(first: Pace, last: Pace) -> bool:
        """Return whether the pace between two times says something."""
        return last.at - first.at >= _LEAST_S and last.layers - first.layers >= _LEAST_LAYERS

    def _compare(self) -> Straggler | None:
        paces = {
            rank: (last.busy_s - first.busy_s) / (last.layers - first.layers)
            for rank, known in self._known.items()
            for first, last in [(known[0], known[-1])]
            if self._is_base(first, last)
        }
        slowest = max((rank for rank in paces if rank not in self._named), key=paces.__getitem__, default=None)
        if slowest is None or len(paces) < max(2, self._workers):
            return None
        usual = median(pace for rank, pace in paces.items() if rank != slowest)
        first, last = self._known[slowest][0], self._known[slowest][-1]
        is_busy = last.busy_s - first.busy_s >= _SHARE * (last.at - first.at)
        if not is_busy or paces[slowest] < _FACTOR * usual:
            return None
        self._named.add(slowest)
        return Straggler(slowest, paces[slowest] / max(usual, 1e-9), first.layers)


def find_stragglers(reports: Iterable[RankReport]) -> list[Straggler]:
    """Return the stragglers among ranks that have ended, in the order in which they could have been noticed."""
    told = [list(_paces(report)) for report in reports]
    paces = Paces(len(told))
    return [found for pace in merge(*told) if (found := paces.note(pace)) is not None]


def _paces(report: RankReport) -> Iterator[Pace]:
    """Yield the paces that a rank could have told, by the seconds that it computed and waited in each layer."""
    at, busy_s = (report.started or 0.0) + report.load_s, 0.0
    due = at
    for number, layer in enumerate(report.layers, start=1):
        layer_s = layer.compute_s + layer.unpack_s + layer.pack_s
        at, busy_s = at + layer_s + layer.wait_s, busy_s + layer_s
        if at >= due:
            due = at + PACE_S
            yield Pace(at, report.rank, number, busy_s)
