"""The tracks of a rank: what it does one after the other, and what goes on beside that."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fsd_inference.rank_report import Interval, RankReport

SENDS = frozenset({"send"})
POINTS = frozenset({"receive"})


_PHASES = {"boundary": "compute", "interior": "compute", "all": "compute"}


def activity(event: Interval) -> str:
    """Return what an event is drawn as: computing, whichever rows; otherwise its name."""
    return _PHASES.get(event.name, event.name)


def main_track(rank: RankReport) -> list[Interval]:
    """Return what a rank does one after the other, its start among it: sends and arrivals are left to other tracks."""
    work = [each for each in rank.events if each.name not in SENDS | POINTS]
    if rank.started is not None and work and rank.started < work[0].start:
        work.insert(0, Interval("start", -1, 0, rank.started, work[0].start))
    return work


def lanes(events: Sequence[Interval]) -> list[list[Interval]]:
    """Deal events to as few lanes as it takes for none to overlap another of its lane.

    Parameters
    ----------
    events : sequence of Interval
        By start.
    """
    dealt: list[list[Interval]] = []
    free: list[tuple[float, int]] = []  # when each lane's last event ends
    for each in events:
        if free and free[0][0] <= each.start:
            _, lane = heapq.heappop(free)
        else:
            lane = len(dealt)
            dealt.append([])
        dealt[lane].append(each)
        heapq.heappush(free, (each.end, lane))
    return dealt
