"""Virtual time: what is to happen when, in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """A heap of calls.

    Attributes
    ----------
    now : float
        Virtual seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0  # of calls at the same time: as they were asked for

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call at `time`, or now if that has passed."""
        self._order += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._order, call, arguments))

    def run(self, until: Callable[[], bool]) -> None:
        """Make the calls in order, until nothing is left or `until` says so."""
        heap = self._heap
        while heap and not until():
            self.now, _, call, arguments = heapq.heappop(heap)
            call(*arguments)
