"""The queue of bodies that have arrived for a rank and that it has not received yet."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from fsd_inference.channels.base import Body
from fsd_inference.channels.sending import closed_error
from fsd_inference.errors import ChannelError


class Mailbox:
    """A thread-safe queue of arrived bodies, and of errors to report, for one rank."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._bodies: deque[Body] = deque()
        self._errors: deque[ChannelError] = deque()
        self._closed = False

    def put(self, bodies: Sequence[Body]) -> None:
        """Add bodies; after `close` they are dropped."""
        with self._changed:
            if not self._closed:
                self._bodies.extend(bodies)
                self._changed.notify_all()

    def fail(self, error: ChannelError) -> None:
        """Make the next `take` that has no bodies to return raise `error`."""
        with self._changed:
            self._errors.append(error)
            self._changed.notify_all()

    def take(self, timeout_s: float) -> list[Body]:
        """Remove and return all bodies; wait up to `timeout_s` seconds for the first. `close` ends the wait."""
        with self._changed:
            if self._closed:
                raise closed_error()
            self._changed.wait_for(lambda: self._bodies or self._errors or self._closed, max(0.0, timeout_s))
            if not self._bodies and self._errors:
                raise self._errors.popleft()
            bodies = list(self._bodies)
            self._bodies.clear()
            return bodies

    def close(self) -> None:
        """Drop all bodies and wake the waiting threads."""
        with self._changed:
            self._closed = True
            self._bodies.clear()
            self._changed.notify_all()
