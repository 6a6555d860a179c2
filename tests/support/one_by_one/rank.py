"""The state of a simulated rank that receives its frames one by one."""

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
"""A frame: time at which it becomes receivable, (layer, micro-batch), (source, edge), bytes. Summaries have layer L."""


@dataclass(slots=True, eq=False)
class EventRank(Rank):
    """The state of one rank in a simulation request by request."""

    senders: Semaphore = field(default_factory=lambda: Semaphore(SENDERS))
    writers: Semaphore = field(default_factory=lambda: Semaphore(WRITERS))
    readers: Semaphore = field(default_factory=lambda: Semaphore(READERS))
    # Number of missing parts of edges in several parts, by ((layer, micro-batch), (source, edge)).
    parts: dict[tuple[tuple[int, int], tuple[int, int]], int] = field(default_factory=dict)
    # Edges that have arrived by (layer, micro-batch): passed to the state machine when all have.
    held: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    unread: list[Message] = field(default_factory=list)  # arrived before the shard was loaded
    # For queues: a heap of messages in the queue or in flight, and the state of the poll.
    pending: list[Message] = field(default_factory=list)
    is_polling: bool = False
    is_waiting: bool = False
    polled_at: float = 0.0
    wakes_at: float = math.inf
    hidden: int = 0  # received messages, which stay in the queue
    # For objects: those written for this rank, and the state of its polling.
    visible: dict[Expected, tuple[float, Reader]] = field(default_factory=dict)
    is_looking: bool = False
    read: set[Expected] = field(default_factory=set)
    paces: dict[Kind, Pace] = field(default_factory=lambda: {kind: Pace(PaceSettings()) for kind in Kind})
    abort_due: float = 0.0
