"""Requests of a run on functions that its ranks do not make: its coordinator's, and its client's.

Both poll, so that their requests follow from how long the run takes.
"""

from __future__ import annotations

import math
from collections import Counter

from fsd_inference.config import RunSettings
from fsd_inference.limits import FAILURES_POLL_S, PROGRESS_S, REPORT_BACKOFF, STATUS_BACKOFF, Backoff
from fsd_inference.usage import Usage

_STATUSES, _METRICS, _CLAIM = 3, 1, 1
"""Objects that a coordinator writes: the status when it begins, when rank 0 is started, at the end."""


def count_coordination(settings: RunSettings, *, wall_s: float, run_s: float, is_warm: bool) -> Usage:
    """Return the requests of a run's coordinator and its client, and those by which functions differ from processes.

    Parameters
    ----------
    settings : RunSettings
    wall_s, run_s : float
        From asking to the answer; from the start of rank 0 to its end.
    is_warm : bool
        Whether the functions' environments are there: they have then read the stack's description.
    """
    workers, tells = settings.workers, math.floor(run_s / PROGRESS_S)
    looks = round(_looks(max(0.0, wall_s - run_s) / 2, STATUS_BACKOFF))  # before the coordinator has written a status
    heads = round(_looks(run_s, REPORT_BACKOFF))
    polls = math.ceil(run_s / FAILURES_POLL_S)
    # The coordinator reads the stack's description each time; a cold one the manifest, and cold ranks the description.
    reads = 1 if is_warm else 1 + 1 + workers
    requests = Counter(
        {
            "lambda.invoke": 1 + workers,
            "s3.put": _CLAIM + _STATUSES + _METRICS + tells,
            "s3.get": reads + round(_looks(wall_s, STATUS_BACKOFF)) + 2 * tells + 1,
            "s3.head": heads,
            "sqs.receive": polls,
        }
    )
    if run_s > settings.clocks.start_s:
        requests["s3.list"] = 1  # whether all ranks have claimed their places
    return Usage(requests, Counter(requests), misses=looks + tells + heads - 1, empty_polls=polls)


def _looks(seconds: float, pauses: Backoff) -> float:
    """Return how often someone looks within so many seconds who pauses ever longer."""
    first, growth, longest = pauses
    growing = math.log(longest / first) / math.log(growth)
    until: float = first * (growth**growing - 1) / (growth - 1)
    if seconds <= until:
        return 1 + math.log(1 + seconds * (growth - 1) / first) / math.log(growth)
    return 1 + growing + (seconds - until) / longest
