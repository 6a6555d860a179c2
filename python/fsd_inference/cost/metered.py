"""The billed Lambda time of a run, computed from its report as if each rank had been a Lambda function."""

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
    """Return the billed time of a run's workers and of the coordinators that wait for them.

    An invocation is billed from its start to its end, and the first one of an environment also for the init phase.

    Parameters
    ----------
    report : RunReport
        Its times are those measured on the machine where the run took place.
    memory_mb : int, optional
        Memory in MB of each worker's function; default: the report's value, or else `MB_PER_VCPU`.
    architecture : {"x86_64", "arm64"}
    coordinator_mb : int, optional
        Memory in MB of the coordinator's function.

    Returns
    -------
    tuple of FunctionTime
        Workers, then coordinators.

    Raises
    ------
    FileFormatError
        A rank in the report has no start or end time.
    """
    # A report without ranks is that of a serial run, where one worker does all the work.
    spans = [rank.init_s + _lifetime_s(rank) for rank in report.ranks] if report.ranks else [report.wall_s]
    memory_mb = memory_mb or report.memory_mb or MB_PER_VCPU
    earlier = report.earlier
    workers_s = earlier.workers_s + sum(map(billed_s, spans))
    workers = FunctionTime(memory_mb, architecture, workers_s, earlier.workers + len(spans))
    # Where no function carried out the run, assume a coordinator a replica that would have lasted the whole run.
    coordinated = report.coordinators or [(0.0, report.wall_s)] * report.replicas
    seconds = sum(billed_s(max(0.0, ended - began)) for began, ended in coordinated) + report.coordinator_init_s
    seconds, count = seconds + earlier.coordinators_s, len(coordinated) + earlier.coordinators
    return workers, FunctionTime(coordinator_mb, architecture, seconds, count)


def _lifetime_s(rank: RankReport) -> float:
    seconds = rank.lived_s
    if seconds is None or seconds < 0:
        raise FileFormatError("a rank of the report does not say when it started and ended")
    return seconds


def billed_s(seconds: float) -> float:
    """Return the seconds for which a function is billed that took some."""
    return math.ceil(seconds / BILLED_TICK_S) * BILLED_TICK_S
