"""The coordinator's work: one attempt at a run, from the event that requests it to the final status.

It leases a lane, starts rank 0 and monitors three things: rank 0's report, whether all ranks have started, and Lambda's
records of ranks that died without a report. Each coordination is one attempt; retries are left to the client.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from fsd_inference.aws.backends import open_channel
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.events import RankEvent, RunEvent, check_fit
from fsd_inference.aws.failures import Failure, FailureQueue, parse_coordinator_failure, parse_failure
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.launcher import invoke_rank
from fsd_inference.aws.status import INLINE_BYTES, RunStatus, failure_key, metrics_key, status_key
from fsd_inference.aws.waking import wake
from fsd_inference.engine.control import abort_frame
from fsd_inference.engine.ending import Ended, first_error, read_reports
from fsd_inference.engine.loading import load_manifest
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import DeadlineError, FileFormatError, FsdError, RunError, SettingError, StartError
from fsd_inference.limits import FAILURES_POLL_S, LONGEST_POLL_S, PROGRESS_S, REPORT_BACKOFF, WAKING_S
from fsd_inference.rank_report import RankReport
from fsd_inference.stack_description import FunctionsSpec, StackSpec
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool, start
from fsd_inference.usage import Usage, UsageMeter

_END_S = 20.0
"""Seconds before Lambda's timeout by which the ranks must have ended: time to write metrics and status."""
_GRACE_S = 5.0
"""Seconds after their deadline that ranks may take to end by themselves."""
_ABORT_S = 8.0
"""Seconds that aborted ranks may take to write their reports."""
_LAST_REPORTS_S = 10.0
"""Seconds after rank 0's report to wait for the other reports, which the ranks began to write before it."""
_READERS = 16


@dataclass(frozen=True, slots=True)
class Resources:
    """The open resources that a coordination uses; the caller closes them.

    Attributes
    ----------
    clients, stack, runs
        The stack, clients of its services, and its run buckets.
    digest : str
        Digest of the stack's description (`RankEvent.stack`).
    meter : UsageMeter
        Counts the coordinator's requests.
    read_plan : callable
        Returns the object with a given key in the network bucket, or None.
    code : str
        Digest of the deployed code (`RankEvent.code`).
    awake : set of str
        ARNs of worker functions that this execution environment has found awake: it is gone long before they sleep.
    """

    clients: Clients
    stack: StackSpec
    digest: str
    runs: Sequence[Store]
    meter: UsageMeter
    read_plan: Callable[[str], bytes | None]
    code: str
    awake: set[str]

    @property
    def store(self) -> Store:
        """The store of inputs, claims, results and statuses: the first run bucket."""
        return self.runs[0]


class Coordination:
    """One attempt at a run, carried out by one invocation of the coordinator.

    Parameters
    ----------
    resources : Resources
    event : RunEvent
        The requested attempt.
    ends : float
        Time at which Lambda ends this invocation, in seconds since the epoch.
    before : Usage
        The meter's reading when the invocation began: what follows is this attempt's usage.
    """

    def __init__(self, resources: Resources, event: RunEvent, ends: float, before: Usage) -> None:
        self._use = resources
        self._event = event
        self._ends = ends
        self._before = before
        self._status = RunStatus(
            run=event.spec.run,
            attempt=event.spec.attempt,
            plan=event.spec.plan,
            channel=event.channel,
            workers=event.spec.settings.workers,
            samples=event.spec.samples,
            state="waiting" if event.channel == "queue" else "running",
            received=time.time(),
        )

    def carry_out(self) -> RunStatus | None:
        """Carry out the attempt, store and return its final status; None if another invocation has claimed it."""
        spec = self._event.spec
        if self._use.store.put_if_absent(f"{spec.prefix}coordinator", b"") is None:
            return None
        self._put_status()
        ended = None
        try:
            functions = self._checked()
            function = functions.worker(self._event.memory_mb)
            assert function is not None  # noqa: S101 - checked by `check_fit`
            self._wake(function.arn)
            with self._lane() as lane:
                ended = self._run(functions, function.arn, lane)
                if ended.error is not None:
                    raise ended.error
            self._status = replace(self._status, state="done", results=self._small_results(ended))
        except Exception as error:  # noqa: BLE001 - the client that waits for the run must see any error in the status
            failure = error if isinstance(error, RunError) else _as_run_error(error)
            self._status = replace(self._status, state="failed", error=failure, results=None)
        self._status = replace(self._status, ended=time.time())
        self._put_metrics(ended)
        self._put_status()
        return self._status

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _checked(self) -> FunctionsSpec:
        """Return the stack's functions after checking that the attempt can work on them, before anything is started."""
        event, stack = self._event, self._use.stack
        check_fit(event, stack)
        try:
            manifest = load_manifest(self._use.read_plan, event.spec)
        except FileFormatError as error:
            raise FileFormatError(
                f"plan {event.spec.plan} is not on stack {stack.name} ({error}): push it first"
            ) from error
        if manifest.features != event.spec.features:
            raise SettingError(f"the plan takes {manifest.features} features per sample, not {event.spec.features}")
        self._status = replace(self._status, layers=manifest.layers)
        assert stack.functions is not None  # noqa: S101 - checked by `check_fit`
        return stack.functions

    def _wake(self, function: str) -> None:
        """Wake the worker function if it sleeps: each memory size does by itself."""
        use = self._use
        if function in use.awake:
            return
        before = self._status

        def tell() -> None:
            self._status = replace(before, state="waking")
            self._put_status()

        limit_s = min(WAKING_S, self._ends - _END_S - time.time())
        wake(use.clients.functions, function, use.meter, limit_s=limit_s, on_sleep=tell)
        use.awake.add(function)
        if self._status is not before:
            self._status = before
            self._put_status()

    @contextmanager
    def _lane(self) -> Iterator[int | None]:
        """Hold a lane for the duration of a `with` block, and yield its number; None if the channel needs no lane."""
        if self._event.channel != "queue":
            yield None
            return
        use, spec = self._use, self._event.spec
        lanes = open_lanes(use.store, use.clients, use.stack, meter=use.meter)
        left_s = self._ends - _END_S - time.time()
        wait_s = max(0.0, min(self._event.lane_wait_s, left_s - spec.settings.clocks.start_s))
        with lanes.hold(
            spec.run, spec.attempt, min(spec.settings.clocks.run_s, left_s), wait_s, LONGEST_POLL_S
        ) as lease:
            yield lease.lane

    def _run(self, functions: FunctionsSpec, function: str, lane: int | None) -> Ended:
        event, use = self._event, self._use
        launched = time.time()
        deadline = min(launched + event.spec.settings.clocks.run_s, self._ends - _END_S)
        clocks = replace(event.spec.settings.clocks, run_s=deadline - launched)
        spec = replace(event.spec, deadline=deadline, settings=replace(event.spec.settings, clocks=clocks))
        rank_event = RankEvent(spec, 0, None, event.channel, event.memory_mb, lane, use.code, use.digest)
        with _Watch(use, spec, functions) as watch:
            invoke_rank(use.clients.functions, function, rank_event, use.meter)
            self._status = replace(self._status, state="running", launched=launched)
            self._put_status()
            failed = watch.until_over(launched)
            if failed is not None:
                self._abort(spec, lane, failed)
            reports = _last_reports(use.store, spec, failed)
        # A parent reports only its own missing child; only the coordinator knows how many ranks are missing in total.
        error = failed if isinstance(failed, StartError) else first_error(spec, reports, [failed] if failed else [])
        return Ended(launched, reports, error)

    def _abort(self, spec: RunSpec, lane: int | None, error: RunError) -> None:
        """Send an abort to all ranks on behalf of the failed one; if that fails, the ranks end at their deadline."""
        source = error.rank if error.rank is not None else 0
        frame = abort_frame(spec, source, error)
        if frame is None:
            return
        use = self._use
        channel = open_channel(use.clients, use.stack, use.runs, self._event.channel, spec=spec, rank=source, lane=lane)
        try:
            with suppress(FsdError):
                channel.abort(frame)
        finally:
            channel.close()

    # --- results, status and metrics ---------------------------------------------------------------------------------

    def _small_results(self, ended: Ended) -> tuple[bytes, ...] | None:
        """Return the result objects if they are small enough to be part of the status, and None otherwise."""
        spec = self._event.spec
        sizes = {report.rank: report.result_bytes for report in ended.reports}
        ranks = range(spec.settings.workers) if spec.settings.output == "rows" else range(1)
        if sum(sizes.values()) > INLINE_BYTES:
            return None
        with ThreadPool(_READERS) as threads:
            found = list(threads.map(self._use.store.get, [spec.result_key(rank) for rank in ranks]))
        if any(result is None for result in found):
            raise RunError(
                "a rank's result is missing from the store although the run succeeded",
                operation="collect",
                retryable=True,
            )
        return tuple(result for result in found if result is not None)

    def _put_status(self) -> None:
        self._use.store.put(status_key(self._status.run), json.dumps(self._status.to_json()).encode())

    def _put_metrics(self, ended: Ended | None) -> None:
        spec = self._event.spec
        usage = self._use.meter.snapshot() - self._before
        usage.requests["s3.put"] += 2  # these metrics and the final status, both still to be written
        usage.billed_units["s3.put"] += 2
        metrics: dict[str, Any] = {
            "version": 1,
            "run": spec.run,
            "attempt": spec.attempt,
            "stack": self._use.stack.name,
            "channel": self._event.channel,
            "memory_mb": self._event.memory_mb,
            "launched": self._status.launched,
            "coordinator": {"started": self._status.received, "ended": self._status.ended, "usage": usage.to_json()},
            "ranks": [] if ended is None else [report.to_json() for report in ended.reports],
        }
        self._use.store.put(metrics_key(spec.prefix), json.dumps(metrics).encode())


class _Watch:
    """A monitor of a running attempt: polls for rank 0's report, and receives failure records in a thread."""

    def __init__(self, use: Resources, spec: RunSpec, functions: FunctionsSpec) -> None:
        self._use = use
        self._spec = spec
        self._failures = FailureQueue(use.clients, functions.failures_queue_url, use.meter)
        self._failed: RunError | None = None
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._listener = threading.Thread(target=self._listen, name="failures")

    def __enter__(self) -> _Watch:
        start(self._listener)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._listener.join()

    def until_over(self, launched: float) -> RunError | None:
        """Wait for the end of the attempt; return None once rank 0 has reported, or an error if one is seen first."""
        store, spec = self._use.store, self._spec
        barrier: float | None = launched + spec.settings.clocks.start_s
        forwarded_due = launched + PROGRESS_S
        pause = REPORT_BACKOFF.first_s
        while not self._woken.wait(pause):
            if store.stat(spec.report_key(0)) is not None:
                return None
            now = time.time()
            if now >= forwarded_due:
                forwarded_due = now + PROGRESS_S
                self._poll_forwarded()
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
        claimed = {int(info.key.rpartition("/")[2]) for info in self._use.store.list(prefix)}
        return sorted(set(range(self._spec.settings.workers)) - claimed)

    def _poll_forwarded(self) -> None:
        """Note a failure of this attempt that another run's coordinator received and stored."""
        data = self._use.store.get(failure_key(self._spec.prefix))
        failure = None if data is None else parse_failure(data)
        if failure is not None:
            self._note(failure.error)

    def _listen(self) -> None:
        """Receive failure records until stopped, and handle each."""
        while not self._stop.is_set():
            try:
                for body, receipt in self._failures.receive(FAILURES_POLL_S):
                    self._handle(body)
                    self._failures.delete(receipt)
            except FsdError as error:
                if not self._stop.is_set():
                    self._note(_as_run_error(error))
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
            self._use.store.put_if_absent(failure_key(other.prefix), body.encode())
        elif orphan is not None:
            event, error = orphan
            self._end(event.spec, error)

    def _end(self, spec: RunSpec, error: RunError) -> None:
        """Write the final status of a run whose coordinator died."""
        key = status_key(spec.run)
        data = self._use.store.get(key)
        if data is None:
            return
        status = RunStatus.from_bytes(data, key)
        if status.attempt == spec.attempt and not status.is_over:
            ended = replace(status, state="failed", error=error, ended=time.time())
            self._use.store.put(key, json.dumps(ended.to_json()).encode())

    def _is_ours(self, failure: Failure) -> bool:
        spec = failure.event.spec
        return (spec.run, spec.attempt) == (self._spec.run, self._spec.attempt)

    def _note(self, error: RunError) -> None:
        self._failed = self._failed or error
        self._woken.set()


def _last_reports(store: Store, spec: RunSpec, failed: RunError | None) -> list[RankReport]:
    """Return the reports of all ranks, or of those that report before the timeout."""
    until = time.time() + (_LAST_REPORTS_S if failed is None else _ABORT_S)
    silent = set() if failed is None or failed.rank is None else {failed.rank}
    reports: dict[int, RankReport] = {}
    while True:
        missing = [rank for rank in range(spec.settings.workers) if rank not in reports]
        reports |= {report.rank: report for report in read_reports(store, spec, missing)}
        if silent.issuperset(set(range(spec.settings.workers)) - reports.keys()) or time.time() > until:
            return [reports[rank] for rank in sorted(reports)]
        time.sleep(REPORT_BACKOFF.longest_s)


def _not_started(spec: RunSpec, missing: Sequence[int]) -> StartError:
    workers = spec.settings.workers
    names = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
    return StartError(
        f"{workers - len(missing)} of {workers} ranks started within {spec.settings.clocks.start_s:g} s "
        f"(missing: {names}); check that the account has enough free concurrency, and try again",
        rank=missing[0],
        operation="start",
    )


def _as_run_error(error: Exception) -> RunError:
    if isinstance(error, FsdError):
        return RunError(str(error), operation="coordinate", retryable=error.retryable)
    return RunError(f"the coordinator failed: {type(error).__name__}: {error}", operation="coordinate")
