"""A simulated rank whose frames come one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.forecast.frames import Reader
from fsd_inference.limits import READERS, SENDERS, WRITERS
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.resources import Semaphore

Message = tuple[float, tuple[int, int], tuple[int, int], float]
"""A frame: when it can be received, its (layer, micro-batch), its (source, edge), bytes; a summary is of layer L."""


@dataclass(slots=True, eq=False)
class EventRank(Rank):
    """One rank while it is simulated request by request."""

    senders: Semaphore = field(default_factory=lambda: Semaphore(SENDERS))
    writers: Semaphore = field(default_factory=lambda: Semaphore(WRITERS))
    readers: Semaphore = field(default_factory=lambda: Semaphore(READERS))
    # Parts still missing of edges that come in several: ((layer, micro-batch), (source, edge)).
    parts: dict[tuple[tuple[int, int], tuple[int, int]], int] = field(default_factory=dict)
    # Edges that have come of (layer, micro-batch): told to the state machine once all are there.
    held: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    unread: list[Message] = field(default_factory=list)  # what came before its shard was loaded
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
