"""The retry loop of all requests to services, which counts every attempt and keeps to the deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from fsd_inference.config import RetrySettings
from fsd_inference.deadlines import NoTimeLeftError, answered, left_s
from fsd_inference.errors import FsdError
from fsd_inference.logs import Logger
from fsd_inference.usage import UsageMeter

T = TypeVar("T")

_log = Logger(__name__)

Classifier = Callable[[Exception, bool], FsdError]
"""Maps the exception of an attempt, and whether the attempt was a retry, to an error. The request is repeated if that
error is `retryable` and an attempt is left; otherwise the error is raised. May raise instead, to end the loop."""


def send(
    kind: str,
    call: Callable[[], T],
    *,
    meter: UsageMeter,
    retry: RetrySettings,
    errors: tuple[type[Exception], ...],
    classify: Classifier,
    units: Callable[[], int] = lambda: 1,
    wait: Callable[[float], object] | None = None,
    is_throttled: Callable[[Exception], bool] | None = None,
) -> T:
    """Send a request, and retry it with exponential backoff while its failures are transient and time is left.

    No attempt outlives the deadline of the calling thread's work (see `deadlines`), and no retry begins after it.

    Parameters
    ----------
    kind : str
        Kind of request that `meter` counts, for example ``"sqs.receive"``.
    call : callable
        Sends the request once.
    meter : UsageMeter
        Counts each attempt before it is made.
    retry : RetrySettings
        Maximum number of attempts, and the pauses between them.
    errors : tuple of types
        Exceptions of a failed attempt; other exceptions are not caught.
    classify : callable
        Maps an exception to an error; see `Classifier`.
    units : callable, optional
        Returns the billing units of the next attempt; 1 if not given.
    wait : callable, optional
        Waits for a number of seconds; may raise to end the loop. `time.sleep` if not given.
    is_throttled : callable, optional
        Returns whether an exception says that the service throttled the attempt; `retry` allows such requests more
        time. Never if not given.

    Raises
    ------
    FsdError
        The error that `classify` returned for the last attempt; a retryable one if the deadline ended it.
    """
    tried, began = 0, time.monotonic()
    while True:
        try:
            if left_s() > 0:
                meter.request(kind, units=units(), retry=tried > 0)
            return answered(call)
        except NoTimeLeftError as error:
            failure = classify(error, tried > 0)
            failure.retryable = True
            raise failure from error
        except errors as error:
            failure = classify(error, tried > 0)
            tried += 1
            waited = time.monotonic() - began
            throttled = is_throttled is not None and is_throttled(error)
            pause = retry.pause_s(tried, waited, random.random, throttled=throttled)
            if pause is None or not failure.retryable or pause >= left_s():
                raise failure from error
            _log.info("%s failed, retrying in %.2f s: %s", kind, pause, failure)
        (wait or time.sleep)(pause)
