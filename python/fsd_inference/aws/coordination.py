"""The coordinator's work: one attempt at a run, from the event that requests it to the final status.

It wakes the worker function, has the run admitted, leases a lane, starts rank 0 and watches the run (`watching.py`).
Each coordination is one attempt; retries are left to the client.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from fsd_inference.aws.admission import Admission
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.concurrency import Concurrency
from fsd_inference.aws.events import RankEvent, RunEvent, check_fit
from fsd_inference.aws.failures import FailureQueue
from fsd_inference.aws.heartbeat import Heartbeat
from fsd_inference.aws.lanes import Holding, open_lanes
from fsd_inference.aws.launcher import invoke_rank
from fsd_inference.aws.orphans import send_abort
from fsd_inference.aws.status import INLINE_BYTES, RunStatus, heartbeat_key, metrics_key, status_key
from fsd_inference.aws.waking import wake
from fsd_inference.aws.watching import Watch, as_run_error, last_reports
from fsd_inference.deadlines import cleaning_up, within
from fsd_inference.engine.ending import Ended, first_error
from fsd_inference.engine.loading import load_manifest
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError, FsdError, RunError, SettingError, StartError
from fsd_inference.limits import COORDINATOR_END_S, LONGEST_POLL_S, WAKING_S
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Straggler
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import Usage, UsageMeter

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
    concurrency : callable
        Returns what may run at a time with a worker function, or None if that cannot be read.
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
    concurrency: Callable[[WorkerFunction], Concurrency | None]
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
    init_s : float
        Seconds of the init phase before this invocation; 0 if the environment was warm.
    """

    def __init__(self, resources: Resources, event: RunEvent, *, ends: float, before: Usage, init_s: float) -> None:
        self._use = resources
        self._event = event
        self._ends = ends
        self._before = before
        self._init_s = init_s
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
        """Carry out the attempt, store and return its final status; None if another invocation has claimed it.

        If other runs need all functions that may run at a time, the status is "queued": the caller invokes again.
        """
        spec, ended = self._event.spec, None
        with within(self._ends - COORDINATOR_END_S - time.time()):
            if self._use.store.put_if_absent(self._claim_key, b"") is None:
                return None
            self._put_status()
            try:
                with Heartbeat(self._use.store, heartbeat_key(spec.prefix)):
                    functions = self._checked()
                    function = functions.worker(self._event.memory_mb)
                    assert function is not None  # noqa: S101 - checked by `check_fit`
                    self._wake(function.arn)
                    with self._admission(function) as is_admitted:
                        if not is_admitted:
                            return self._queue()
                        with self._lane() as holding:
                            ended = self._run(functions, function.arn, None if holding is None else holding.lease.lane)
                            if ended.error is not None:
                                raise ended.error
                            if holding is not None:
                                holding.ended_well(ended.reports)
                    results = self._small_results(ended)
                self._status = replace(self._status, state="done", results=results)
            except Exception as error:  # noqa: BLE001 - the client that waits for the run must see any error in the status
                failure = error if isinstance(error, RunError) else as_run_error(error)
                self._status = replace(self._status, state="failed", error=failure, results=None)
        self._status = replace(self._status, ended=time.time())
        with within(self._ends - time.time()):
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
        if len(event.spec.connection_s) not in {0, manifest.layers}:
            raise SettingError(
                f"the plan has {manifest.layers} layers, and 'connection_s' {len(event.spec.connection_s)} numbers"
            )
        if event.spec.resume_at >= manifest.layers:
            raise SettingError(f"the plan has {manifest.layers} layers: no attempt can start at {event.spec.resume_at}")
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

        limit_s = min(WAKING_S, self._ends - COORDINATOR_END_S - time.time())
        wake(use.clients.functions, function, use.meter, limit_s=limit_s, on_sleep=tell)
        use.awake.add(function)
        if self._status is not before:
            self._status = before
            self._put_status()

    @contextmanager
    def _admission(self, function: WorkerFunction) -> Iterator[bool]:
        """Hold the functions that the attempt needs for the duration of a `with` block; yield False if it must wait."""
        use, spec = self._use, self._event.spec
        limits = use.concurrency(function)
        if limits is None:
            yield True
            return
        admission = Admission(use.store)
        ticket = admission.enter(
            spec.run,
            spec.attempt,
            spec.settings.workers,
            limits,
            deadline_s=min(self._ends - time.time(), self._event.lane_wait_s + spec.settings.clocks.run_s),
            now=self._status.received,
            queued_since=self._event.queued_since,
        )
        try:
            yield ticket is not None
        finally:
            if ticket is not None:
                with suppress(FsdError), cleaning_up():  # the ticket expires
                    admission.leave(ticket)

    def _queue(self) -> RunStatus:
        """Give the attempt back, for another invocation to claim, and return the status that asks for it."""
        self._use.store.delete([self._claim_key])
        self._status = replace(self._status, state="queued")
        self._put_status()
        return self._status

    @property
    def _claim_key(self) -> str:
        return f"{self._event.spec.prefix}coordinator"

    @contextmanager
    def _lane(self) -> Iterator[Holding | None]:
        """Hold a lane for the duration of a `with` block; yield None if the channel needs no lane."""
        if self._event.channel != "queue":
            yield None
            return
        use, spec = self._use, self._event.spec
        lanes = open_lanes(use.store, use.clients, use.stack, meter=use.meter)
        left_s = self._ends - COORDINATOR_END_S - time.time()
        wait_s = max(0.0, min(self._event.lane_wait_s, left_s - spec.settings.clocks.start_s))
        with lanes.hold(
            spec.run, spec.attempt, min(spec.settings.clocks.run_s, left_s), wait_s, LONGEST_POLL_S
        ) as holding:
            yield holding

    def _run(self, functions: FunctionsSpec, function: str, lane: int | None) -> Ended:
        event, use = self._event, self._use
        launched = time.time()
        spec = replace(event.spec, deadline=launched + event.spec.settings.clocks.run_s).ending_by(
            self._ends - COORDINATOR_END_S
        )
        clocks = replace(spec.settings.clocks, run_s=spec.deadline - launched)
        spec = replace(spec, settings=replace(spec.settings, clocks=clocks))
        rank_event = RankEvent(spec, 0, None, event.channel, event.memory_mb, lane, use.code, use.digest)
        failures = FailureQueue(use.clients, functions.failures_queue_url, use.meter)
        lane_s = 0.0 if lane is None else use.stack.purge_settle_s
        watch = Watch(use.store, failures, spec, self._tell_straggler, lane_s)
        with within(clocks.run_s + COORDINATOR_END_S), watch:
            invoke_rank(use.clients.functions, function, rank_event, use.meter)
            self._status = replace(self._status, state="running", launched=launched)
            self._put_status()
            failed = watch.until_over(launched)
            if failed is not None:
                self._abort(spec, lane, failed)
            reports = last_reports(use.store, spec, failed)
        # A parent reports only its own missing child; only the coordinator knows how many ranks are missing in total.
        error = failed if isinstance(failed, StartError) else first_error(spec, reports, [failed] if failed else [])
        return Ended(launched, reports, error)

    def _abort(self, spec: RunSpec, lane: int | None, error: RunError) -> None:
        """Send an abort to all ranks on behalf of the failed one; if that fails, the ranks end at their deadline."""
        use, source = self._use, error.rank if error.rank is not None else 0
        with suppress(FsdError), cleaning_up():
            send_abort(
                use.clients, use.stack, use.runs, self._event.channel, spec, lane=lane, source=source, error=error
            )

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

    def _tell_straggler(self, straggler: Straggler) -> None:
        self._status = replace(self._status, stragglers=(*self._status.stragglers, straggler))
        self._put_status()

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
            "coordinator": {
                "started": self._status.received,
                "ended": self._status.ended,
                "init_s": self._init_s,
                "usage": usage.to_json(),
            },
            "ranks": [] if ended is None else [report.to_json() for report in ended.reports],
        }
        self._use.store.put(metrics_key(spec.prefix), json.dumps(metrics).encode())
