"""One attempt over local processes: start rank 0, watch, collect."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.worker import died
from fsd_inference.errors import AbortedError, DeadlineError, RunError, run_error_from_record
from fsd_inference.launch.local import LocalLauncher
from fsd_inference.launch.place import Place
from fsd_inference.session.progress import Progress, task
from fsd_inference.store.base import Store

_GRACE_S = 15.0
"""How long after the deadline the ranks may take to end by themselves."""
_WATCH_S = 0.2


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: when rank 0 was started, what each rank reports, and what went wrong.

    Without an error there is a report of every rank; otherwise of those that could still write one.
    """

    launched: float
    reports: list[dict[str, Any]]
    error: RunError | None


def run_attempt(place: Place, store: Store, layers: int, progress: Progress) -> Ended:
    """Run all ranks of an attempt to their end; the error, if any, is that of the rank that failed first."""
    directory = Path(tempfile.mkdtemp(prefix="fsd-run-"))
    directory.chmod(0o700)
    failed: list[RunError] = []

    def on_line(line: str) -> None:
        with suppress(ValueError):
            progress.advance("infer", float(line))

    launcher = LocalLauncher(directory, None, on_line)
    try:
        place.write(directory)
        launched = time.time()
        with task(progress, "infer", layers):
            launcher.start(0, lambda rank, reason, reported: failed.extend([] if reported else [died(rank, reason)]))
            while not failed and not launcher.wait(_WATCH_S):
                if time.time() > place.spec.deadline + _GRACE_S:
                    failed.append(_overdue())
        launcher.close(0.0)
        reports = _reports(store, place.spec)
        return Ended(launched, reports, _first_error(place.spec, reports, failed))
    finally:
        launcher.close(0.0)
        shutil.rmtree(directory, ignore_errors=True)


def _overdue() -> DeadlineError:
    return DeadlineError(
        f"the run did not end within {_GRACE_S:g} s of its deadline; its processes were stopped", operation="run"
    )


def _reports(store: Store, spec: RunSpec) -> list[dict[str, Any]]:
    """Return the reports that are there; one that cannot be read is as good as none."""
    reports = []
    for rank in range(spec.settings.workers):
        data = store.get(spec.report_key(rank))
        with suppress(ValueError):
            reports.append(json.loads(data or b""))
    return reports


def _first_error(spec: RunSpec, reports: Sequence[dict[str, Any]], failed: Sequence[RunError]) -> RunError | None:
    """Return what went wrong first: what the ranks were told by the one that failed, rather than that they stopped."""
    told = {report["rank"]: run_error_from_record(report["error"]) for report in reports if report["error"] is not None}
    causes = {rank: error for rank, error in told.items() if not isinstance(error, AbortedError)}
    for error in (*causes.values(), *failed, *told.values()):
        return _origin(error, causes)
    missing = sorted(set(range(spec.settings.workers)) - {report["rank"] for report in reports})
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
