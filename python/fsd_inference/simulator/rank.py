"""A simulated rank: the engine's state machine, and the resources of its function."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.engine.worker import Worker
from fsd_inference.limits import STARTERS
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.rank_report import Interval
from fsd_inference.simulator.resources import Bandwidth, Semaphore


@dataclass(slots=True, eq=False)
class Rank:
    """One rank while it is simulated."""

    number: int
    starter: int | None
    plan: RankPlan
    worker: Worker
    speed: float  # of its processors, as a share of an ordinary rank's
    up: Bandwidth
    down: Bandwidth
    starters: Semaphore = field(default_factory=lambda: Semaphore(STARTERS))
    begun: float = math.inf
    started: float = math.inf
    ended: float = math.inf
    is_claimed: bool = False
    is_loaded: bool = False
    idle_since: float = 0.0
    intervals: list[Interval] = field(default_factory=list)
    sent: list[tuple[int, int, float]] = field(default_factory=list)
    early: list[int] = field(default_factory=list)  # children that were done before its shard was loaded
    pace: Pace = field(default_factory=lambda: Pace(PaceSettings()))  # of its looks for objects

    def note(self, name: str, layer: int, micro_batch: int, start: float, end: float) -> None:
        """Record an interval."""
        self.intervals.append(Interval(name, layer, micro_batch, start, end))
