"""What a run's report says of the time of its functions, as if each of its ranks had been a Lambda function."""

from __future__ import annotations

import math

from fsd_inference.errors import FileFormatError
from fsd_inference.limits import BILLED_TICK_S, COORDINATOR_MB, MB_PER_VCPU
from fsd_inference.prediction import FunctionTime
from fsd_inference.rank_report import RankReport
from fsd_inference.run_report import RunReport


def function_times(
    report: RunReport,
    *,
    memory_mb: int | None = None,
    architecture: str = "x86_64",
    coordinator_mb: int = COORDINATOR_MB,
) -> tuple[FunctionTime, ...]:
    """Return the time of a run's workers, from start to end, and of the coordinators that wait for them.

    Parameters
    ----------
    report : RunReport
        Seconds are those of the machine where it ran.
    memory_mb : int, optional
        Of each worker's function; what the report says, or `MB_PER_VCPU`, if not given.
    architecture : {"x86_64", "arm64"}
    coordinator_mb : int, optional
        Of the function that carries out the run.

    Raises
    ------
    FileFormatError
        A rank's part of the report does not say when it started and ended.
    """
    # Without ranks it was a serial run: one worker does it all.
    spans = [_lived_s(rank) for rank in report.ranks] if report.ranks else [report.wall_s]
    memory_mb = memory_mb or report.memory_mb or MB_PER_VCPU
    workers = FunctionTime(memory_mb, architecture, sum(map(_billed, spans)), len(spans))
    # Where no function carried the run out, one (each replica's) would have lived as long as the run took.
    coordinated = report.coordinators or [(0.0, report.wall_s)] * report.replicas
    seconds = sum(_billed(max(0.0, ended - began)) for began, ended in coordinated)
    return workers, FunctionTime(coordinator_mb, architecture, seconds, len(coordinated))


def _lived_s(rank: RankReport) -> float:
    seconds = rank.lived_s
    if seconds is None or seconds < 0:
        raise FileFormatError("a rank of the report does not say when it started and ended")
    return seconds


def _billed(seconds: float) -> float:
    return math.ceil(seconds / BILLED_TICK_S) * BILLED_TICK_S
