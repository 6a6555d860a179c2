"""One attempt at a run with local processes as ranks: start rank 0, wait for the end, collect reports and errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from fsd_inference.channels.local import check_run_directory
from fsd_inference.deadlines import CLEANUP_S, cleaning_up, within
from fsd_inference.engine.ending import Ended, first_error, read_reports
from fsd_inference.engine.overtaking import straggler_error
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import died
from fsd_inference.errors import DeadlineError, FsdError, RunError, StoreError, StragglerError
from fsd_inference.launch.processes import ProcessLauncher, how_ended
from fsd_inference.launch.server import Server
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.launch.watching import RankWatch
from fsd_inference.limits import SLOW_S
from fsd_inference.logs import Logger
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Lag
from fsd_inference.temporary import TemporaryFolder

_GRACE_S = 15.0
"""Seconds after the deadline before ranks that are still running are killed."""
_WATCH_S = 0.2
_HANG_UP_S = 5.0
"""Seconds in which the ranks of an attempt that ends because of a straggler may report."""


_log = Logger(__name__)


def run_attempt(
    launch: LaunchSpec,
    server: Server,
    store: Store,
    on_layer: Callable[[float], None],
    on_wait: Callable[[str], None],
    lost: Callable[[], FsdError | None] | None = None,
    lane_s: float = 0.0,
) -> Ended:
    """Run all ranks of an attempt until they have ended; report the error of the rank that failed first, if any did.

    Parameters
    ----------
    launch : LaunchSpec
        Configuration that the ranks read.
    server : Server
        The session's fork server.
    store : Store
        The store with the objects of the run.
    on_layer : callable
        Called with the number of layers that rank 0 has completed.
    on_wait : callable
        Called with a description of each rank that is so slow that the others wait for it.
    lost : callable, optional
        Returns why the ranks must be stopped, or None: they use something that is not theirs any more.
    lane_s : float, optional
        Seconds for which the lane of a failed attempt is not free.

    Raises
    ------
    SettingError
        The directory for temporary files cannot be used.
    """
    failed: list[RunError] = []
    reported: list[tuple[int, str]] = []  # ranks that told their errors to the others, and how their processes ended
    settings = launch.spec.settings

    def on_end(rank: int, reason: str, is_reported: bool) -> None:
        if is_reported:
            reported.append((rank, reason))
        else:
            failed.append(died(rank, reason))

    with TemporaryFolder("run") as directory:
        if launch.channel == "local":
            check_run_directory(directory, settings.workers)
        watch = RankWatch(
            Tree(settings.workers, settings.branching),
            settings.clocks,
            now=time.monotonic,
            how_ended=partial(how_ended, directory),
            on_layer=on_layer,
            on_straggler=lambda straggler: on_wait(str(straggler)),
        )
        launcher = ProcessLauncher(directory, None, server.requests(), watch.on_line)
        try:
            launch.write(directory)
            log = _log.of(run=launch.spec.run)
            log.info("attempt %d begins: %d ranks over %s", launch.spec.attempt, settings.workers, launch.channel)
            launched = time.time()
            until = time.monotonic() + launch.spec.deadline - launched + _GRACE_S
            slow_due = 0.0
            launcher.start(0, on_end)
            while not failed and not launcher.wait(_WATCH_S) and not watch.is_over():
                if time.monotonic() > until:
                    failed.append(_overdue())
                elif lost is not None and (why := lost()) is not None:
                    failed.append(RunError(f"the ranks were stopped: {why}", operation="lease", retryable=True))
                elif settings.restart_stragglers and time.monotonic() >= slow_due and (slow := watch.straggler()):
                    slow_due = time.monotonic() + SLOW_S
                    if (found := _overtaken(*slow, launch.spec, store, lane_s)) is not None:
                        failed.append(found)
                        launcher.hang_up()
                        launcher.wait(_HANG_UP_S)  # for the reports of the ranks
            seen = [*watch.errors, *failed]  # before rank 0 is killed, which would be seen as well
            launcher.close(0.0)
            try:
                with cleaning_up() if failed or reported else within(max(CLEANUP_S, until - time.monotonic())):
                    reports = read_reports(store, launch.spec, range(settings.workers))
                error = first_error(launch.spec, reports, seen)
            except StoreError as unread:
                reports, error = [], seen[0] if seen else _unread(unread, reported)
            log.info("attempt %d ended: %s", launch.spec.attempt, "success" if error is None else error)
            return Ended(launched, reports, error)
        finally:
            launcher.close(0.0)


def _overtaken(lag: Lag, start_s: float, spec: RunSpec, store: Store, lane_s: float) -> StragglerError | None:
    with suppress(StoreError):  # the run does not need it
        return straggler_error(lag, spec, store, start_s + lane_s)
    return None


def _overdue() -> DeadlineError:
    return DeadlineError(
        f"the run did not end within {_GRACE_S:g} s of its deadline; its processes were stopped", operation="run"
    )


def _unread(error: StoreError, reported: Sequence[tuple[int, str]]) -> RunError:
    """Return the error of an attempt whose reports cannot be read, with what is known of a rank that failed."""
    rank, reason = reported[0] if reported else (None, "")
    known = f"; rank {rank} failed: {reason}" if reported else ""
    message = f"reading the reports of the ranks: {error}{known}"
    return RunError(message, rank=rank, operation="report", retryable=error.retryable)
