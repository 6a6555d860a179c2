"""Predicted requests of the coordinator and the client of a run on Lambda.

Both poll, so the number of their requests depends on how long the run takes.
"""

from __future__ import annotations

import math
from collections import Counter

from fsd_inference.config import RunSettings
from fsd_inference.forecast.course import Course
from fsd_inference.forecast.times import RunTimes
from fsd_inference.limits import FAILURES_POLL_S, HEARTBEAT_S, PROGRESS_S, REPORT_BACKOFF, STATUS_BACKOFF, Backoff
from fsd_inference.usage import Usage

_STATUSES, _METRICS, _CLAIM, _TICKET = 3, 1, 1, 1
"""Number of objects of each kind that a coordinator writes; the status when it begins, starts rank 0, and ends."""
_LOOKS = 3
"""Requests of a cold coordinator for the state of the worker function and the limits of concurrency."""


def count_coordination(settings: RunSettings, *, wall_s: float, run_s: float, is_warm: bool) -> Usage:
    """Return the requests of a run's coordinator and client, and those that only ranks on functions make.

    Parameters
    ----------
    settings : RunSettings
    wall_s, run_s : float
        Seconds from the client's request to the answer, and from the start of rank 0 to its end.
    is_warm : bool
        Whether the functions are warm: warm environments have cached the stack's description.
    """
    workers, updates = settings.workers, math.floor(run_s / PROGRESS_S)
    beats = math.floor(run_s / HEARTBEAT_S)
    early = round(_polls_within(max(0.0, wall_s - run_s) / 2, STATUS_BACKOFF))  # before the first status is written
    heads = round(_polls_within(run_s, REPORT_BACKOFF))
    receives = math.ceil(run_s / FAILURES_POLL_S)
    # The coordinator always reads the stack's description; a cold one also the manifest; cold ranks the description.
    reads = 1 if is_warm else 1 + 1 + workers
    requests = Counter(
        {
            "lambda.invoke": 1 + workers,
            "s3.put": _CLAIM + _TICKET + _STATUSES + _METRICS + updates + beats,
            "s3.list": 1,  # all tickets
            "s3.delete": 1,  # its own
            "s3.get": reads + round(_polls_within(wall_s, STATUS_BACKOFF)) + 2 * updates + 1,
            "s3.head": heads + beats,
            "sqs.receive": receives,
        }
    )
    if run_s > settings.clocks.start_s:
        requests["s3.list"] += 1  # checks that all ranks have claimed their places
    if workers > 1:
        requests["s3.list"] += math.floor(run_s / settings.clocks.stall_s)  # checks that rank 0 is not the last
    if not is_warm:
        requests["lambda.settings"] = _LOOKS
    return Usage(requests, Counter(requests), misses=early + updates + heads - 1, empty_polls=receives)


def count_coordinations(settings: RunSettings, times: RunTimes, course: Course, *, is_warm: bool) -> Usage:
    """Return those requests for all attempts of a run, each with a coordinator of its own; only the first starts cold.

    Parameters
    ----------
    settings : RunSettings
    times : RunTimes
        Times of the run, its hand-ons included.
    course : Course
        The attempts.
    is_warm : bool
        See `count_coordination`.
    """
    around_s = (times.wall_s - sum(attempt.run_s for attempt in course.attempts)) / len(course.attempts)
    return sum(
        (
            count_coordination(
                settings, wall_s=attempt.run_s + around_s, run_s=attempt.run_s, is_warm=is_warm or number > 0
            )
            for number, attempt in enumerate(course.attempts)
        ),
        Usage(),
    )


def _polls_within(seconds: float, pauses: Backoff) -> float:
    """Return the number of polls that exponential backoff makes within a time."""
    first, growth, longest = pauses
    growing = math.log(longest / first) / math.log(growth)
    until: float = first * (growth**growing - 1) / (growth - 1)
    if seconds <= until:
        return 1 + math.log(1 + seconds * (growth - 1) / first) / math.log(growth)
    return 1 + growing + (seconds - until) / longest
