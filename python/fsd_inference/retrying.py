"""The retry loop of all requests: every attempt is counted, and repeated while that can help."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from fsd_inference.config import RetrySettings
from fsd_inference.errors import FsdError
from fsd_inference.logs import Logger
from fsd_inference.usage import UsageMeter

T = TypeVar("T")

_log = Logger(__name__)

Classifier = Callable[[Exception, bool], FsdError]
"""Takes what a request raised, and whether it was a repeat; returns the error to raise unless it is `retryable` and an
attempt is left, or raises something else at once."""


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
) -> T:
    """Send a request, again after a pause while its failures are transient.

    Parameters
    ----------
    kind : str
        What `meter` counts, for example ``"sqs.receive"``.
    call : callable
        Sends the request once.
    meter : UsageMeter
        Counts each attempt before it is made.
    retry : RetrySettings
        How many attempts there are, and the pauses between them.
    errors : tuple of types
        What a failed attempt raises; anything else passes through.
    classify : callable
        Says what a failure is; see `Classifier`.
    units : callable, optional
        Returns how many units the service bills the next attempt as.
    wait : callable, optional
        Waits for some seconds; may raise to end the loop. `time.sleep` if not given.

    Raises
    ------
    FsdError
        What `classify` returned for the last attempt.
    """
    pauses = retry.pauses()
    is_repeat = False
    while True:
        meter.request(kind, units=units(), retry=is_repeat)
        try:
            return call()
        except errors as error:
            failure = classify(error, is_repeat)
            pause = next(pauses, None) if failure.retryable else None
            if pause is None:
                raise failure from error
            _log.info("%s failed and is sent again in %.2f s: %s", kind, pause, failure)
        is_repeat = True
        (wait or time.sleep)(pause)
