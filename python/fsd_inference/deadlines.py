"""The deadline of requests: a time limit for all requests of a `with` block, and of the threads that it starts.

The limit is part of the context (`contextvars`), so that stores and clients which several runs share obey the deadline
of the run that uses them. The threads of `threads.start` and `threads.ThreadPool` take over the context of whoever
starts them or submits work to them.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from fsd_inference.threads import start

T = TypeVar("T")

CLEANUP_S = 5.0
"""Seconds for the requests that clean up after a run, or report how it ended; what is left then expires by itself."""
LONGEST_REQUEST_S = 120.0
"""Longest time of one request in seconds by the timeouts of the clients themselves."""

_until: ContextVar[float] = ContextVar("until", default=math.inf)  # a time of `time.monotonic`


class NoTimeLeftError(Exception):
    """A request had no answer by the deadline, or was not sent because the deadline had passed."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give all requests in a `with` block this many seconds from now; in nested blocks the innermost limit counts."""
    token = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(token)


def cleaning_up() -> AbstractContextManager[None]:
    """Give all requests in a `with` block the time for cleaning up, even if the deadline of the run has passed."""
    return within(CLEANUP_S)


def left_s() -> float:
    """Return the seconds until the deadline, negative after it; infinity without one."""
    return _until.get() - time.monotonic()


def answered(call: Callable[[], T]) -> T:
    """Return the result of a call that sends a request; raise `NoTimeLeftError` if there is none by the deadline.

    The request of a service that does not answer is then left to a daemon thread, which ends with the client's timeout.
    """
    left = left_s()
    if left > LONGEST_REQUEST_S:  # the request cannot outlive the deadline
        return call()
    if left <= 0:
        raise NoTimeLeftError("there was no time left before the deadline")
    answer: Future[T] = Future()

    def send() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            answer.set_exception(error)

    start(threading.Thread(target=send, name="request", daemon=True))
    if not wait([answer], left).done:
        raise NoTimeLeftError(f"the service did not answer within {left:.1f} s, by the deadline")
    return answer.result()
