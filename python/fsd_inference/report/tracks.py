"""The tracks of a rank in timelines and traces: its sequential work, and its concurrent sends."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fsd_inference.rank_report import Interval, RankReport

SENDS = frozenset({"send"})
"""Names of intervals that overlap the work of a rank."""
POINTS = frozenset({"receive"})
"""Names of events without duration."""

_PHASES = {"boundary": "compute", "interior": "compute", "all": "compute", "digest": "compute"}


def activity(event: Interval) -> str:
    """Return the activity as which an event is drawn: "compute" for all compute phases, otherwise its name."""
    return _PHASES.get(event.name, event.name)


def main_track(rank: RankReport) -> list[Interval]:
    """Return the sequential intervals of a rank, including its start, without sends and arrivals."""
    work = [each for each in rank.events if each.name not in SENDS | POINTS]
    if rank.started is not None and work and rank.started < work[0].start:
        work.insert(0, Interval("start", -1, 0, rank.started, work[0].start))
    return work


def lanes(events: Sequence[Interval]) -> list[list[Interval]]:
    """Distribute events over the smallest number of lanes in which no two events of a lane overlap.

    Parameters
    ----------
    events : sequence of Interval
        Events in order of start.
    """
    filled: list[list[Interval]] = []
    free: list[tuple[float, int]] = []  # when each lane's last event ends
    for each in events:
        if free and free[0][0] <= each.start:
            _, lane = heapq.heappop(free)
        else:
            lane = len(filled)
            filled.append([])
        filled[lane].append(each)
        heapq.heappush(free, (each.end, lane))
    return filled
