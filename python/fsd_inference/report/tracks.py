"""The tracks of a rank: what it does one after the other, and what goes on beside that."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from fsd_inference.report.figures import RankFigures, Slice

SENDS = frozenset({"send"})
POINTS = frozenset({"receive"})


def main_track(rank: RankFigures) -> list[Slice]:
    """Return what a rank does one after the other, its start among it: sends and arrivals are left to other tracks."""
    work = [each for each in rank.slices if each.name not in SENDS | POINTS]
    if rank.started is not None and work and rank.started < work[0].start:
        work.insert(0, Slice("start", -1, 0, rank.started, work[0].start))
    return work


def lanes(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Deal slices to as few lanes as it takes for none to overlap another of its lane.

    Parameters
    ----------
    slices : sequence of Slice
        By start.
    """
    dealt: list[list[Slice]] = []
    free: list[tuple[float, int]] = []  # when each lane's last slice ends
    for each in slices:
        if free and free[0][0] <= each.start:
            _, lane = heapq.heappop(free)
        else:
            lane = len(dealt)
            dealt.append([])
        dealt[lane].append(each)
        heapq.heappush(free, (each.end, lane))
    return dealt
