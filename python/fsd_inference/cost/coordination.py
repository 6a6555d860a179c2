"""What a run on functions asks for beside its ranks: its coordinator, and the client that follows its status.

How often either looks follows from how long the run takes; the pauses are those of `aws.coordination` and
`aws.lambda_home`.
"""

from __future__ import annotations

import math

from fsd_inference.config import RunSettings
from fsd_inference.usage import Usage

_STATUSES, _METRICS, _CLAIM = 3, 1, 1
"""Objects that a coordinator writes: the status when it begins, when rank 0 is started, at the end."""
_REPORT_S = (0.05, 1.5, 0.25)
"""Pauses of its looks for rank 0's report: the first, by how much each is longer, and the longest."""
_STATUS_S = (0.05, 1.15, 1.0)
"""Those of the client's looks at the status."""
_FAILURES_S = 1.0
"""How long the coordinator waits at the queue of failures each time."""
_OTHERS_S = 2.0
"""How often it looks for what another coordinator has received there; and rank 0 says, and the client reads, how far
the run is."""


def count_coordination(usage: Usage, settings: RunSettings, *, wall_s: float, run_s: float, is_warm: bool) -> None:
    """Add to what a run's ranks count what coordinator and client will.

    Parameters
    ----------
    usage : Usage
        Of a run without a sweep: what was exchanged through objects expires.
    settings : RunSettings
    wall_s, run_s : float
        From asking to the answer; from the start of rank 0 to its end.
    is_warm : bool
        Whether the functions' environments are there, with the shards of the network on their disks.
    """
    workers, tells = settings.workers, math.floor(run_s / _OTHERS_S)
    _count(usage, "lambda.invoke", 1 + workers)
    _count(usage, "s3.put", _CLAIM + _STATUSES + _METRICS + tells)
    looks = round(_looks(max(0.0, wall_s - run_s) / 2, _STATUS_S))  # before the coordinator has written a status
    # The stack's description, which the coordinator reads each time and a rank once; a cold coordinator the manifest.
    reads = 1 - 2 * workers if is_warm else 1 + workers + 1
    _count(usage, "s3.get", reads + round(_looks(wall_s, _STATUS_S)) + 2 * tells + 1)
    heads = round(_looks(run_s, _REPORT_S))
    _count(usage, "s3.head", heads)
    usage.misses += looks + tells + heads - 1
    polls = math.ceil(run_s / _FAILURES_S)
    _count(usage, "sqs.receive", polls)
    usage.empty_polls += polls
    if run_s > settings.clocks.start_s:
        _count(usage, "s3.list", 1)  # whether all ranks have claimed their places


def _looks(seconds: float, pauses: tuple[float, float, float]) -> float:
    """Return how often someone looks within so many seconds who pauses ever longer."""
    first, growth, longest = pauses
    growing = math.log(longest / first) / math.log(growth)
    until: float = first * (growth**growing - 1) / (growth - 1)
    if seconds <= until:
        return 1 + math.log(1 + seconds * (growth - 1) / first) / math.log(growth)
    return 1 + growing + (seconds - until) / longest


def _count(usage: Usage, kind: str, requests: int) -> None:
    usage.requests[kind] += requests
    usage.billed_units[kind] += requests
