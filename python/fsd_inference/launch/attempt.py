"""One attempt over local processes: start rank 0, watch, see how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from fsd_inference.channels.local import check_run_directory
from fsd_inference.engine.ending import Ended, first_error, read_reports
from fsd_inference.engine.worker import died
from fsd_inference.errors import DeadlineError, RunError
from fsd_inference.launch.local import LocalLauncher
from fsd_inference.launch.place import Place
from fsd_inference.logs import Logger
from fsd_inference.store.base import Store
from fsd_inference.temporary import TemporaryFolder

_GRACE_S = 15.0
"""How long after the deadline the ranks may take to end by themselves."""
_WATCH_S = 0.2


_log = Logger(__name__)


def run_attempt(place: Place, store: Store, on_layer: Callable[[float], None]) -> Ended:
    """Run all ranks of an attempt to their end; the error, if any, is that of the rank that failed first.

    Parameters
    ----------
    place : Place
        Where the ranks find each other.
    store : Store
        Holds the objects of the run.
    on_layer : callable
        Called with the number of layers that rank 0 has done.

    Raises
    ------
    SettingError
        The directory of temporary files cannot be used.
    """
    failed: list[RunError] = []

    def on_line(line: str) -> None:
        with suppress(ValueError):
            on_layer(float(line))

    with TemporaryFolder("run") as directory:
        if place.channel == "local":
            check_run_directory(directory, place.spec.settings.workers)
        launcher = LocalLauncher(directory, None, on_line)
        try:
            place.write(directory)
            log = _log.of(run=place.spec.run)
            log.info(
                "attempt %d begins: %d ranks over %s", place.spec.attempt, place.spec.settings.workers, place.channel
            )
            launched = time.time()
            until = time.monotonic() + place.spec.deadline - launched + _GRACE_S
            launcher.start(0, lambda rank, reason, reported: failed.extend([] if reported else [died(rank, reason)]))
            while not failed and not launcher.wait(_WATCH_S):
                if time.monotonic() > until:
                    failed.append(_overdue())
            launcher.close(0.0)
            reports = read_reports(store, place.spec, range(place.spec.settings.workers))
            error = first_error(place.spec, reports, failed)
            log.info("attempt %d ended: %s", place.spec.attempt, "well" if error is None else error)
            return Ended(launched, reports, error)
        finally:
            launcher.close(0.0)


def _overdue() -> DeadlineError:
    return DeadlineError(
        f"the run did not end within {_GRACE_S:g} s of its deadline; its processes were stopped", operation="run"
    )
