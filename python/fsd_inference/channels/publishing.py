"""The pace at which a rank publishes messages, so that all ranks together keep to the account's quota."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fsd_inference.token_bucket import share_of_publishing


class PublishingShare:
    """A rank's share of an account's publishing quota; safe to share between threads.

    The lock is held for a few additions, never while a thread waits for its turn.

    Parameters
    ----------
    quota_per_s : float or None
        Messages a second that the account may publish; None for no limit.
    workers : int
        Number of ranks of the run.
    clock : callable, optional
        Returns the time in seconds; `time.monotonic` if not given.
    """

    def __init__(self, quota_per_s: float | None, workers: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = None if quota_per_s is None else share_of_publishing(quota_per_s, workers)
        self._clock = clock
        self._lock = threading.Lock()

    def wait_s(self, messages: int) -> float:
        """Reserve the publishing of a batch of messages, and return the seconds until its turn, 0.0 if it is now."""
        if self._bucket is None:
            return 0.0
        with self._lock:
            return self._bucket.wait_s(self._clock(), messages)
