"""Detection of stragglers: ranks that compute each layer much slower than the others, which then wait for them.

The plan gives all ranks nearly the same number of connections, so that a rank that takes several times as long as the
median has a slow or shared processor. The rule is the same while a run goes on and for the reports of one that has
ended. On functions nobody sees the paces of all ranks: a rank compares itself with what was foreseen, and tells its
coordinator if it is much slower.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from heapq import merge
from statistics import median
from typing import NamedTuple

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields, load_json
from fsd_inference.rank_report import RankReport

PACE_S = 1.0
"""Interval in seconds at which a rank tells its pace, and at which paces are compared."""
_FACTOR = 3.0
"""Ratio to the median of the other ranks, or to what was foreseen, from which a rank is a straggler."""
_LEAST_S = 5.0
_LEAST_LAYERS = 4
"""A rank's pace is taken over at least so many seconds and layers."""
_SHARE = 0.5
"""Part of that time that a straggler computes at least: one that waits for others does not hold them up."""


class Pace(NamedTuple):
    """How far a rank was at a time.

    Attributes
    ----------
    at : float
        The time in seconds.
    rank : int
    layers : int
        Completed layers.
    busy_s : float
        Seconds that it computed, packed and unpacked.
    kernel_s, foreseen_s : float
        Seconds of the products alone, and how many were foreseen for these layers; 0 if none were.
    of : int
        Layers of the network.
    """

    at: float
    rank: int
    layers: int
    busy_s: float
    kernel_s: float = 0.0
    foreseen_s: float = 0.0
    of: int = 0


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


class Lag(NamedTuple):
    """What a slow rank is at.

    Attributes
    ----------
    rank : int
    factor : float
        How many times slower it is than the median of the others or, as it tells itself, than foreseen.
    layer : int
        The layer from which on it was so slow.
    layers, of : int
        Completed layers, and those of the network.
    layer_s : float
        Seconds that each takes, waits included.
    began : float
        When it had completed its first layer.
    """

    rank: int
    factor: float
    layer: int
    layers: int
    of: int
    layer_s: float
    began: float

    @property
    def straggler(self) -> Straggler:
        """The rank as it is named."""
        return Straggler(self.rank, self.factor, self.layer)

    def to_bytes(self) -> bytes:
        """Return the object in which a rank tells its lag."""
        return json.dumps(self._asdict()).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Lag | None:
        """Parse the output of `to_bytes`; return None for anything else."""
        try:
            fields = Fields(load_json(data), "", "a slow rank")
            return cls(
                fields.take_count("rank"),
                fields.take_number("factor"),
                fields.take_count("layer"),
                fields.take_count("layers"),
                fields.take_count("of"),
                fields.take_number("layer_s"),
                fields.take_time("began"),
            )
        except (ValueError, FileFormatError):
            return None


class _Window:
    """The latest paces of a rank, as few as together say something, and its first."""

    def __init__(self) -> None:
        self._paces: deque[Pace] = deque()
        self._began = 0.0

    def add(self, pace: Pace) -> None:
        """Add a pace, in order of time."""
        self._began = self._began if self._paces else pace.at
        self._paces.append(pace)
        while len(self._paces) > 1 and self._is_base(self._paces[1], pace):
            self._paces.popleft()

    @property
    def ends(self) -> tuple[Pace, Pace] | None:
        """The first and the last of the paces; None while they say nothing."""
        if not self._paces:
            return None
        first, last = self._paces[0], self._paces[-1]
        return (first, last) if self._is_base(first, last) else None

    @property
    def is_busy(self) -> bool:
        """Whether the rank computes, so that others may wait for it."""
        return self.ends is not None and self._share(*self.ends) >= _SHARE

    def lag(self, factor: float) -> Lag | None:
        """Return what the rank is at, for a rank that is slower by a factor; None while the paces say nothing."""
        if self.ends is None:
            return None
        first, last = self.ends
        layer_s = (last.at - first.at) / (last.layers - first.layers)
        return Lag(last.rank, factor, first.layers, last.layers, last.of, layer_s, self._began)

    @staticmethod
    def _is_base(first: Pace, last: Pace) -> bool:
        """Return whether the pace between two times says something."""
        return last.at - first.at >= _LEAST_S and last.layers - first.layers >= _LEAST_LAYERS

    @staticmethod
    def _share(first: Pace, last: Pace) -> float:
        return (last.busy_s - first.busy_s) / (last.at - first.at)


class Paces:
    """The paces of the ranks of a run, from which stragglers are found one by one.

    Parameters
    ----------
    workers : int
        Number of ranks.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._known: defaultdict[int, _Window] = defaultdict(_Window)
        self._named: set[int] = set()
        self._due = 0.0

    def note(self, pace: Pace) -> Straggler | None:
        """Take a rank's pace, in order of time; return a straggler that was not returned before, if there is one."""
        self._known[pace.rank].add(pace)
        if pace.at < self._due:
            return None
        self._due = pace.at + PACE_S
        lag = self._worst(self._named)
        if lag is None:
            return None
        self._named.add(lag.rank)
        return lag.straggler

    @property
    def worst(self) -> Lag | None:
        """What the slowest rank is at, if it is a straggler now."""
        return self._worst(())

    def _worst(self, left_out: Collection[int]) -> Lag | None:
        paces = {
            rank: (last.busy_s - first.busy_s) / (last.layers - first.layers)
            for rank, window in self._known.items()
            if window.ends is not None
            for first, last in [window.ends]
        }
        if len(paces) < self._workers:
            return None
        found = _slowest(paces, left_out)
        return None if found is None or not self._known[found[0]].is_busy else self._known[found[0]].lag(found[1])


class Foreseen:
    """The pace of a rank compared with what was foreseen, by the rank itself."""

    def __init__(self) -> None:
        self._window = _Window()

    def note(self, pace: Pace) -> None:
        """Take the rank's pace, in order of time."""
        self._window.add(pace)

    @property
    def factor(self) -> float | None:
        """How many times slower than foreseen the rank computes; None while that is not known."""
        if self._window.ends is None:
            return None
        first, last = self._window.ends
        foreseen_s = last.foreseen_s - first.foreseen_s
        return None if foreseen_s <= 0 else (last.kernel_s - first.kernel_s) / foreseen_s

    @property
    def lag(self) -> Lag | None:
        """What the rank is at if it computes, and is so slow that its coordinator should know; else None."""
        factor = self.factor
        return None if factor is None or factor < _FACTOR or not self._window.is_busy else self._window.lag(factor)


def worst_of(told: Mapping[int, Lag], workers: int, usual: float, left_out: Collection[int] = ()) -> Lag | None:
    """Return what the slowest rank is at, if it is a straggler by what slow ranks have told.

    Parameters
    ----------
    told : mapping of int to Lag
        What each slow rank has told: how many times slower than foreseen it is.
    workers : int
        Number of ranks.
    usual : float
        The same factor of the ranks that have told nothing.
    left_out : collection of int, optional
        Ranks that are not to be returned.
    """
    factors = {rank: told[rank].factor if rank in told else usual for rank in range(workers)}
    found = _slowest(factors, {*left_out, *(factors.keys() - told.keys())})
    return None if found is None else told[found[0]]._replace(factor=found[1])


def _slowest(paces: Mapping[int, float], left_out: Collection[int]) -> tuple[int, float] | None:
    """Return the slowest rank, and by which factor it is slower than the median of the others, if that is much."""
    slowest = max((rank for rank in paces if rank not in left_out), key=paces.__getitem__, default=None)
    if slowest is None or len(paces) < 2:
        return None
    usual = median(pace for rank, pace in paces.items() if rank != slowest)
    return None if paces[slowest] < _FACTOR * usual else (slowest, paces[slowest] / max(usual, 1e-9))


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
