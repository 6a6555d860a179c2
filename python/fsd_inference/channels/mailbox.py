"""Where bodies wait for the rank that they came for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from fsd_inference.channels.sending import closed_error
from fsd_inference.errors import ChannelError


class Mailbox:
    """Bodies that have come, and failures to report, for one rank; any thread may put or take."""

    def __init__(self) -> None:
        self._came = threading.Condition()
        self._bodies: deque[bytes] = deque()
        self._errors: deque[ChannelError] = deque()
        self._closed = False

    def put(self, bodies: Sequence[bytes]) -> None:
        """Add bodies; after `close` they are dropped."""
        with self._came:
            if not self._closed:
                self._bodies.extend(bodies)
                self._came.notify_all()

    def fail(self, error: ChannelError) -> None:
        """Make the next `take` that finds no bodies raise `error`."""
        with self._came:
            self._errors.append(error)
            self._came.notify_all()

    def take(self, timeout_s: float) -> list[bytes]:
        """Return all bodies; wait up to `timeout_s` for the first. A closed mailbox wakes its waiters with nothing."""
        with self._came:
            if self._closed:
                raise closed_error()
            self._came.wait_for(lambda: self._bodies or self._errors or self._closed, max(0.0, timeout_s))
            if not self._bodies and self._errors:
                raise self._errors.popleft()
            bodies = list(self._bodies)
            self._bodies.clear()
            return bodies

    def close(self) -> None:
        """Drop what is there and wake the waiters."""
        with self._came:
            self._closed = True
            self._bodies.clear()
            self._came.notify_all()
