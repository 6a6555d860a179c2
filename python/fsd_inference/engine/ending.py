"""How an attempt ended: what its ranks report, and which of their errors is the one to show."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AbortedError, FileFormatError, RunError
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

_READERS = 16


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: when rank 0 was started, what each rank reports, and what went wrong.

    Without an error there is a report of every rank; otherwise of those that could still write one. Where ranks were
    functions, `memory_mb` is their size and `coordinator` says when the function that started them began and ended.
    """

    launched: float
    reports: list[RankReport]
    error: RunError | None
    memory_mb: int | None = None
    coordinator: tuple[float, float] | None = None


def read_reports(store: Store, spec: RunSpec, ranks: Sequence[int]) -> list[RankReport]:
    """Return the reports of `ranks` that are there; one that cannot be read is as good as none."""
    reports = []
    with ThreadPool(_READERS) as threads:
        for data in threads.map(store.get, map(spec.report_key, ranks)):
            with suppress(ValueError, FileFormatError):
                reports.append(RankReport.from_json(json.loads(data or b"")))
    return reports


def first_error(spec: RunSpec, reports: Sequence[RankReport], failed: Sequence[RunError]) -> RunError | None:
    """Return what went wrong first: what the ranks were told by the one that failed, rather than that they stopped.

    Parameters
    ----------
    spec : RunSpec
        The attempt.
    reports : sequence of RankReport
        What `read_reports` found.
    failed : sequence of RunError
        What whoever watched the ranks saw.
    """
    told = {report.rank: error for report in reports if (error := report.failure) is not None}
    causes = {rank: error for rank, error in told.items() if not isinstance(error, AbortedError)}
    for error in (*causes.values(), *failed, *told.values()):
        return _origin(error, causes)
    missing = sorted(set(range(spec.settings.workers)) - {report.rank for report in reports})
    if missing:
        names = ", ".join(map(str, missing))
        return RunError(
            f"ranks {names} ended without a report; try again", rank=missing[0], operation="report", retryable=True
        )
    return None


def _origin(error: RunError, causes: Mapping[int, RunError]) -> RunError:
    """Follow an error to what the rank that it names says of it: a rank may know another's failure by its end alone."""
    followed: set[int] = set()
    while error.rank is not None and error.rank in causes and error.rank not in followed:
        followed.add(error.rank)
        error = causes[error.rank]
    return error
