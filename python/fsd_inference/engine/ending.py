"""The outcome of an attempt: the reports of its ranks, and the root cause among their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fsd_inference.engine.blame import stall_cause
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AbortedError, FileFormatError, RunError, StallError
from fsd_inference.fields import load_json
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

_READERS = 16


@dataclass(frozen=True, slots=True)
class Ended:
    """The outcome of an attempt.

    Attributes
    ----------
    launched : float
        When rank 0 was started, seconds since the epoch.
    reports : list of RankReport
        One report for each rank; if the attempt failed, only those of the ranks that could still write one.
    error : RunError, optional
        The root cause; None if the attempt succeeded.
    memory_mb : int, optional
        Memory size of the ranks' functions in MB; None if the ranks were not functions.
    coordinator : (float, float), optional
        When the coordinator function started and ended, seconds since the epoch; None if there was none.
    coordinator_init_s : float
        Seconds of the coordinator's init phase; 0 if its environment was warm.
    """

    launched: float
    reports: list[RankReport]
    error: RunError | None
    memory_mb: int | None = None
    coordinator: tuple[float, float] | None = None
    coordinator_init_s: float = 0.0


def read_reports(store: Store, spec: RunSpec, ranks: Sequence[int]) -> list[RankReport]:
    """Return the reports that `ranks` have stored; missing and unreadable ones are left out."""
    reports = []
    with ThreadPool(_READERS) as threads:
        for data in threads.map(store.get, map(spec.report_key, ranks)):
            with suppress(ValueError, FileFormatError):
                reports.append(RankReport.from_json(load_json(data or b"")))
    return reports


def first_error(spec: RunSpec, reports: Sequence[RankReport], failed: Sequence[RunError]) -> RunError | None:
    """Return the root cause of a failed attempt: the original failure, not the aborts that followed from it.

    Parameters
    ----------
    spec : RunSpec
        The attempt.
    reports : sequence of RankReport
        The result of `read_reports`.
    failed : sequence of RunError
        Errors seen from outside by whoever watched the ranks.

    Returns
    -------
    RunError or None
        None if every rank has reported success.
    """
    reported = {report.rank: error for report in reports if (error := report.failure) is not None}
    causes = {rank: error for rank, error in reported.items() if not isinstance(error, AbortedError)}
    for error in (*causes.values(), *failed, *reported.values()):
        origin = _origin(error, causes)
        if not isinstance(origin, StallError):
            return origin
        cause = stall_cause(origin, {report.rank: report for report in reports})
        # A rank that was seen to die is better explained by that than by its silence.
        return next((seen for seen in failed if seen.rank == cause.rank and not isinstance(seen, StallError)), cause)
    missing = sorted(set(range(spec.settings.workers)) - {report.rank for report in reports})
    if missing:
        names = ", ".join(map(str, missing))
        return RunError(
            f"ranks {names} ended without a report; try again", rank=missing[0], operation="report", retryable=True
        )
    return None


def _origin(error: RunError, causes: Mapping[int, RunError]) -> RunError:
    """Follow an error that blames another rank to that rank's own error, which knows why it failed."""
    followed: set[int] = set()
    while error.rank is not None and error.rank in causes and error.rank not in followed:
        followed.add(error.rank)
        error = causes[error.rank]
    return error
