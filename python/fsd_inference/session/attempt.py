"""One attempt over local processes: start rank 0, watch, collect."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import DeadlineError, RunError, WorkerDiedError, run_error_from_record
from fsd_inference.launch.local import LocalLauncher
from fsd_inference.launch.place import Place
from fsd_inference.session.progress import Progress, task
from fsd_inference.store.base import Store

_GRACE_S = 15.0
"""How long after the deadline the ranks may take to end by themselves."""
_WATCH_S = 0.2


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that ended well: when rank 0 was started, and what every rank reports."""

    launched: float
    reports: list[dict[str, Any]]


def run_attempt(place: Place, store: Store, layers: int, progress: Progress) -> Ended:
    """Run all ranks of an attempt to their end.

    Raises
    ------
    RunError
        The attempt failed; the error is that of the rank that failed first.
    """
    directory = Path(tempfile.mkdtemp(prefix="fsd-run-"))
    directory.chmod(0o700)
    died: list[tuple[int, str, bool]] = []

    def on_line(line: str) -> None:
        with suppress(ValueError):
            progress.advance("infer", float(line))

    launcher = LocalLauncher(directory, None, on_line)
    try:
        place.write(directory)
        launched = time.time()
        with task(progress, "infer", layers):
            launcher.start(0, lambda rank, reason, reported: died.append((rank, reason, reported)))
            while not launcher.wait(_WATCH_S):
                if time.time() > place.spec.deadline + _GRACE_S:
                    raise DeadlineError(
                        f"the run did not end within {_GRACE_S:g} s of its deadline; its processes were stopped",
                        operation="run",
                    )
        return Ended(launched, _reports(store, place.spec, died))
    finally:
        launcher.close(0.0)
        shutil.rmtree(directory, ignore_errors=True)


def _reports(store: Store, spec: RunSpec, died: Sequence[tuple[int, str, bool]]) -> list[dict[str, Any]]:
    reports = []
    for rank in range(spec.settings.workers):
        data = store.get(spec.report_key(rank))
        if data is not None:
            reports.append(json.loads(data))
    errors = [run_error_from_record(report["error"]) for report in reports if report["error"] is not None]
    for rank, reason, reported in died:
        if not reported:
            raise WorkerDiedError(
                f"rank {rank} ended before its work was done ({reason}); try again, or with more memory",
                rank=rank,
                operation="run",
            )
    if errors:
        raise errors[0]
    missing = sorted(set(range(spec.settings.workers)) - {report["rank"] for report in reports})
    if missing:
        names = ", ".join(map(str, missing))
        raise RunError(f"ranks {names} ended without a report; try again", rank=missing[0], operation="report")
    return reports
