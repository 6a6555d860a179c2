"""What a run's report says of the time of its functions, as if each of its ranks had been a Lambda function."""

from __future__ import annotations

import math

from fsd_inference.errors import FileFormatError
from fsd_inference.records import FunctionTime, RunReport

_TICK_S = 0.001  # Lambda bills milliseconds, rounded up (AWS Lambda pricing)


def function_times(
    report: RunReport, *, memory_mb: int, architecture: str = "x86_64", coordinator_mb: int = 512
) -> tuple[FunctionTime, ...]:
    """Return the time of a run's workers, from start to end, and of the coordinator that waits for them.

    Parameters
    ----------
    report : RunReport
        Seconds are those of the machine where it ran.
    memory_mb : int
        Of each worker's function.
    architecture : {"x86_64", "arm64"}
    coordinator_mb : int, optional
        Of the function that carries out the run; it lives as long as the run takes.

    Raises
    ------
    FileFormatError
        A rank's part of the report does not say when it started and ended.
    """
    # Without ranks it was a serial run: one worker does it all.
    spans = [_span(rank) for rank in report.ranks] if report.ranks else [report.wall_s]
    workers = FunctionTime(memory_mb, architecture, sum(map(_billed, spans)), len(spans))
    return workers, FunctionTime(coordinator_mb, architecture, _billed(report.wall_s), 1)


def _span(rank: object) -> float:
    said = [rank.get(name) for name in ("started", "ended")] if isinstance(rank, dict) else []
    times = [float(time) for time in said if isinstance(time, int | float)]
    if len(times) != 2 or not 0 <= times[1] - times[0] < math.inf:
        raise FileFormatError("a rank of the report does not say when it started and ended")
    return times[1] - times[0]


def _billed(seconds: float) -> float:
    return math.ceil(seconds / _TICK_S) * _TICK_S
