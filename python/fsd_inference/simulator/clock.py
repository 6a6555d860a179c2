"""Virtual time: an event queue that makes scheduled calls in the order of their times."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """A virtual clock with a priority queue of scheduled calls.

    Attributes
    ----------
    now : float
        Current virtual time in seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0  # tie-breaker: calls at the same time are made in the order in which they were scheduled

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Schedule a call at `time`, or now if that time has passed."""
        self._order += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._order, call, arguments))

    def run(self, until: Callable[[], bool]) -> None:
        """Make the scheduled calls in order until none is left or `until` returns True."""
        heap = self._heap
        while heap and not until():
            self.now, _, call, arguments = heapq.heappop(heap)
            call(*arguments)
