"""Observation of a running attempt by its coordinator: rank 0's report, missing ranks, and failures of any rank."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from fsd_inference.aws.failures import Failure, FailureQueue, parse_coordinator_failure, parse_failure, parse_reported
from fsd_inference.aws.notes import tell_failure, told_key
from fsd_inference.aws.orphans import end_status
from fsd_inference.aws.slow_ranks import SlowRanks
from fsd_inference.engine.ending import read_reports
from fsd_inference.engine.overtaking import straggler_error
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import (
    DeadlineError,
    FsdError,
    HandedOnError,
    RunError,
    StallError,
    StartError,
    StoreError,
)
from fsd_inference.limits import ABORTED_S, FAILURES_POLL_S, PROGRESS_S, REPORT_BACKOFF, SLOW_S
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Lag, Straggler
from fsd_inference.threads import start

_GRACE_S = 5.0
"""Seconds after their deadline that ranks may take to end by themselves."""
_QUIET_S = 3.0
"""Seconds without another report after which no more of aborted ranks are expected."""
_LAST_REPORTS_S = 10.0
"""Seconds after rank 0's report to wait for the other reports, which the ranks began to write before it."""


class Watch:
    """A monitor of a running attempt: polls for rank 0's report, and receives failure records in a thread.

    Parameters
    ----------
    store : Store
        The store of claims, reports and statuses.
    failures : FailureQueue
        The queue of Lambda's failure records.
    spec : RunSpec
        The attempt.
    on_straggler : callable
        Called with each rank that is found to be much slower than the others.
    lane_s : float, optional
        Seconds for which the lane of a failed attempt is not free.
    """

    def __init__(
        self,
        store: Store,
        failures: FailureQueue,
        spec: RunSpec,
        on_straggler: Callable[[Straggler], None],
        lane_s: float = 0.0,
    ) -> None:
        self._store = store
        self._spec = spec
        self._failures = failures
        self._on_straggler = on_straggler
        self._lane_s = lane_s
        self._slow: SlowRanks | None = None  # once a rank has told that it is slow
        self._failed: RunError | None = None
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="failures")

    def __enter__(self) -> Watch:
        start(self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.join()

    def until_over(self, launched: float) -> RunError | None:
        """Wait for the end of the attempt; return None once rank 0 has reported, or an error if one is seen first."""
        store, spec = self._store, self._spec
        barrier: float | None = launched + spec.settings.clocks.start_s
        told_due = launched + PROGRESS_S
        slow_due = launched
        others_due, others_ended = launched + spec.settings.clocks.stall_s, False
        pause = REPORT_BACKOFF.first_s
        while not self._woken.wait(pause):
            if store.stat(spec.report_key(0)) is not None:
                return None
            now = time.time()
            if now >= told_due:
                told_due = now + PROGRESS_S
                self._poll_told()
            if self._slow is not None and now >= slow_due:
                slow_due = now + SLOW_S
                self._look_for_stragglers(self._slow, launched)
            if now >= others_due:
                others_due = now + spec.settings.clocks.stall_s
                if others_ended:
                    return _rank_0_silent(spec)
                others_ended = self._others_ended()
            if barrier is not None and now >= barrier:
                barrier = None
                missing = self._missing()
                if missing:
                    return _not_started(spec, missing)
            if now > spec.deadline + _GRACE_S:
                return DeadlineError("the run did not end by its deadline, and rank 0 wrote no report", operation="run")
            pause = REPORT_BACKOFF.after(pause)
        return self._failed

    def _missing(self) -> list[int]:
        """Return the ranks that have not claimed their places, in ascending order."""
        prefix = self._spec.claim_key(0).rpartition("/")[0] + "/"
        claimed = {int(info.key.rpartition("/")[2]) for info in self._store.list(prefix)}
        return sorted(set(range(self._spec.settings.workers)) - claimed)

    def _others_ended(self) -> bool:
        """Return whether all ranks but rank 0 have written their reports, so that none can notice its silence."""
        workers = self._spec.settings.workers
        prefix = self._spec.report_key(0).rpartition("/")[0] + "/"
        return workers > 1 and len(list(self._store.list(prefix))) >= workers - 1

    def _poll_told(self) -> None:
        """Note what this coordinator is told: that a rank is slow, or a failure of the attempt."""
        data = self._store.get(told_key(self._spec.prefix))
        if data is None:
            return
        if Lag.from_bytes(data) is not None:
            self._slow = self._slow or SlowRanks(self._store, self._spec)
            return
        failure = parse_failure(data)
        error = parse_reported(data) if failure is None else failure.error
        if error is not None:
            self._note(error)

    def _look_for_stragglers(self, slow: SlowRanks, launched: float) -> None:
        """Tell of stragglers, and end the attempt if another one is to overtake the slowest."""
        with suppress(StoreError):  # the run does not need it
            slow.read()
            while (lag := slow.named()) is not None:
                self._on_straggler(lag.straggler)
            if self._spec.settings.restart_stragglers and (lag := slow.worst) is not None:
                start_s = lag.began - launched + self._lane_s
                error = straggler_error(lag, self._spec, self._store, start_s)
                if error is not None:
                    self._note(error)

    def _listen(self) -> None:
        """Receive failure records until stopped, and handle each."""
        while not self._stop.is_set():
            try:
                for body, receipt in self._failures.receive(FAILURES_POLL_S):
                    self._handle(body)
                    self._failures.delete(receipt)
            except FsdError as error:
                if not self._stop.is_set():
                    self._note(as_run_error(error))
                return

    def _handle(self, body: str) -> None:
        """Handle a failure record: note those of this attempt, forward those of other runs, and end orphaned runs.

        Coordinators compete for the records. A record of another run's rank is stored in that run's folder, where its
        coordinator polls for it. A run whose coordinator failed has none left, so its final status is written here.
        """
        failure, orphan = parse_failure(body), parse_coordinator_failure(body)
        if failure is not None and self._is_ours(failure):
            self._note(failure.error)
        elif failure is not None:
            other = failure.event.spec
            tell_failure(self._store, other.prefix, body.encode())
        elif orphan is not None:
            event, error = orphan
            end_status(self._store, event.spec, error)

    def _is_ours(self, failure: Failure) -> bool:
        spec = failure.event.spec
        return (spec.run, spec.attempt) == (self._spec.run, self._spec.attempt)

    def _note(self, error: RunError) -> None:
        self._failed = self._failed or error
        self._woken.set()


def last_reports(store: Store, spec: RunSpec, failed: RunError | None) -> list[RankReport]:
    """Return the reports of all ranks, or of those that report before the timeout.

    After a failure few are missing: of the rank that failed, or of the one at the end of the chain of a stall. None is
    if the attempt is handed on.
    """
    until = time.time() + (_LAST_REPORTS_S if failed is None else ABORTED_S)
    silent = {failed.rank} if failed is not None and not isinstance(failed, HandedOnError | StallError) else set()
    reports: dict[int, RankReport] = {}
    quiet_at = until if failed is None else time.time() + _QUIET_S
    while True:
        missing = [rank for rank in range(spec.settings.workers) if rank not in reports]
        found = read_reports(store, spec, missing)
        reports |= {report.rank: report for report in found}
        now = time.time()
        if found and failed is not None:
            quiet_at = now + _QUIET_S
        if silent.issuperset(set(range(spec.settings.workers)) - reports.keys()) or now > min(until, quiet_at):
            return [reports[rank] for rank in sorted(reports)]
        time.sleep(REPORT_BACKOFF.longest_s)


def _rank_0_silent(spec: RunSpec) -> StallError:
    return StallError(
        f"rank 0 stopped responding: all other ranks ended {spec.settings.clocks.stall_s:g} s ago; see its log and "
        "try again",
        rank=0,
        operation="run",
    )


def _not_started(spec: RunSpec, missing: Sequence[int]) -> StartError:
    workers = spec.settings.workers
    names = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return StartError(
        f"{workers - len(missing)} of {workers} ranks started within {spec.settings.clocks.start_s:g} s "
        f"(missing: {names}); check that the account has enough free concurrency, and try again",
        rank=missing[0],
        operation="start",
    )


def as_run_error(error: Exception) -> RunError:
    """Return an error of a coordinator as one of its run."""
    if isinstance(error, FsdError):
        return RunError(str(error), operation="coordinate", retryable=error.retryable)
    return RunError(f"the coordinator failed: {type(error).__name__}: {error}", operation="coordinate")
