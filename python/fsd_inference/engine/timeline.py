"""The event log of a rank: its activities as time intervals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fsd_inference.rank_report import Interval


class Timeline:
    """A thread-safe log of intervals.

    Names: ``load``, ``wait`` (nothing to compute), ``unpack``, ``boundary``, ``interior``, ``all`` (computing those
    rows), ``pack``, ``send`` (from the call until the service has accepted the frames), ``receive`` (a frame arrived;
    no duration), ``store``. Layer -1 stands for the time before the first layer, layer L for the time after the last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._intervals: list[Interval] = []
        # The monotonic clock orders events within a rank; the offset makes ranks comparable.
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return the time on the clock of this log, seconds since the epoch."""
        return time.monotonic() + self._offset

    def add(self, name: str, layer: int, micro_batch: int, start: float, end: float) -> None:
        """Record an interval."""
        with self._lock:
            self._intervals.append(Interval(name, layer, micro_batch, start, end))

    @contextmanager
    def measure(self, name: str, layer: int, micro_batch: int) -> Iterator[None]:
        """Record the duration of the ``with`` block as an interval."""
        start = self.now()
        try:
            yield
        finally:
            self.add(name, layer, micro_batch, start, self.now())

    def intervals(self) -> list[Interval]:
        """Return the intervals recorded so far, in order of start."""
        with self._lock:
            return sorted(self._intervals, key=lambda interval: interval.start)
