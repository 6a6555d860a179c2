"""A simulated rank: the engine's state machine, and what its host has for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.cost.simulator.resources import Line, Turns
from fsd_inference.cost.simulator.traffic import Reader
from fsd_inference.engine.worker import Worker
from fsd_inference.partition.plan import RankPlan
from fsd_inference.rank_report import Interval

STARTERS = 4
"""Threads that start children and load (engine/driver.py)."""
SENDERS, WRITERS, READERS = 4, 2, 8
"""Requests in flight (channels/queue.py, channels/object.py)."""

Message = tuple[float, tuple[int, int], tuple[int, int], float]
"""A frame: when it can be received, its (layer, micro-batch), its (source, edge), bytes; a summary is of layer L."""


@dataclass(slots=True, eq=False)
class Rank:
    """One rank while it is simulated."""

    number: int
    starter: int | None
    plan: RankPlan
    worker: Worker
    speed: float  # of its processors, as a share of an ordinary rank's
    up: Line
    down: Line
    starters: Turns = field(default_factory=lambda: Turns(STARTERS))
    senders: Turns = field(default_factory=lambda: Turns(SENDERS))
    writers: Turns = field(default_factory=lambda: Turns(WRITERS))
    readers: Turns = field(default_factory=lambda: Turns(READERS))
    begun: float = math.inf
    started: float = math.inf
    ended: float = math.inf
    is_claimed: bool = False
    is_loaded: bool = False
    idle_since: float = 0.0
    intervals: list[Interval] = field(default_factory=list)
    sent: list[tuple[int, int, float]] = field(default_factory=list)
    # Parts still missing of edges that come in several: ((layer, micro-batch), (source, edge)).
    parts: dict[tuple[tuple[int, int], tuple[int, int]], int] = field(default_factory=dict)
    # Edges that have come of (layer, micro-batch): told to the state machine once all are there.
    held: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    early: list[Message] = field(default_factory=list)  # what came before its shard was loaded
    # Over queues: what is there or on its way, as a heap, and the poll that waits for it.
    pending: list[Message] = field(default_factory=list)
    is_polling: bool = False
    is_waiting: bool = False
    polled_at: float = 0.0
    wakes_at: float = math.inf
    hidden: int = 0  # messages that were received, which stay in the queue
    # Over objects: those written for this rank, and how it looks for them.
    visible: dict[Expected, tuple[float, Reader]] = field(default_factory=dict)
    is_looking: bool = False
    read: set[Expected] = field(default_factory=set)
    paces: dict[Kind, Pace] = field(default_factory=lambda: {kind: Pace(PaceSettings()) for kind in Kind})
    abort_due: float = 0.0

    def note(self, name: str, layer: int, micro_batch: int, start: float, end: float) -> None:
        """Record an interval."""
        self.intervals.append(Interval(name, layer, micro_batch, start, end))
