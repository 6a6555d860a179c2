"""A simulated rank: the engine's state machine with the simulated resources of its function."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.engine.worker import Worker
from fsd_inference.limits import STARTERS
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.rank_report import Interval
from fsd_inference.simulator.resources import Bandwidth, Semaphore


@dataclass(slots=True, eq=False)
class Rank:
    """The state of one simulated rank."""

    number: int
    starter: int | None
    plan: RankPlan
    worker: Worker
    speed: float  # of its processors, relative to a rank that is no straggler
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
    kept: Counter[int] = field(default_factory=Counter)  # micro-batches of each checkpoint, by the layer after it
    checkpoints: list[float] = field(default_factory=list)  # bytes of each
    storing_until: float = 0.0  # when the last one is stored
    resume_at: int = 0  # the layer after the last one
    early: list[int] = field(default_factory=list)  # children that finished before its shard was loaded
    pace: Pace = field(default_factory=lambda: Pace(PaceSettings()))  # schedules its polls for objects

    def note(self, name: str, layer: int, micro_batch: int, start: float, end: float) -> None:
        """Record an interval of the rank's activity, in virtual seconds."""
        self.intervals.append(Interval(name, layer, micro_batch, start, end))
