"""The executor of a session on Lambda: it invokes the coordinator, polls the run's status, and reads its results."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from botocore.exceptions import ClientError

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients, refusal, request
from fsd_inference.aws.concurrency import check_concurrency
from fsd_inference.aws.events import RunEvent, check_fit
from fsd_inference.aws.heartbeat import Pulse
from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.aws.notes import Progress, progress_key
from fsd_inference.aws.orphans import give_up
from fsd_inference.aws.sdk import SDK_ERRORS
from fsd_inference.aws.status import RunStatus, heartbeat_key, metrics_key, status_key
from fsd_inference.aws.waking import until_awake, wake
from fsd_inference.config import RetrySettings, RunSettings
from fsd_inference.deadlines import within
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec, run_folder
from fsd_inference.errors import AbortedError, DeadlineError, RunError, StartError, StoreError
from fsd_inference.fields import load_json
from fsd_inference.limits import PROGRESS_S, QUEUE_BACKOFF, SILENCE_S, STATUS_BACKOFF, WAKING_S
from fsd_inference.stack_description import FunctionsSpec, StackSpec, function_name
from fsd_inference.store.base import Store
from fsd_inference.usage import Usage, UsageMeter

_RETRY = RetrySettings()
_EVENT_AGE_S = 60.0
"""Seconds after which Lambda drops an event that it could not deliver (maximum_event_age_in_seconds)."""
_GRACE_S = 30.0
"""Seconds after its deadline that a coordinator may take to write the final status."""
_SLOW_S = 10.0
"""Seconds that a run may wait for its coordinator or for a lane before `on_wait` is called."""
_WAITS = {
    "": "the coordinator has not started yet: Lambda is starting it, or has no concurrency left for it",
    "waking": "Lambda is waking worker functions that were unused for weeks, which takes up to 3 minutes",
    "waiting": "no lane is free; see fsd runs list",
}


class LambdaExecutor:
    """Carries out attempts on the Lambda functions of a stack, with its buckets as stores.

    Parameters
    ----------
    channel : {"serial", "queue", "object"}
        The channel over which ranks exchange frames.
    stack : StackSpec
        A stack with functions.
    settings : RunSettings
        The settings of all runs.
    need_mb : callable
        Estimates the memory in MB that a rank of an attempt needs; the smallest sufficient worker function is used.
    memory_mb : int, optional
        Memory of the worker function to use instead, in MB.
    synchronous : bool, optional
        Invoke the coordinator synchronously and wait for its response, instead of polling the run's status.
    runs : int, optional
        Maximum number of concurrent runs; `attempt` may be called from several threads for different runs.
    on_wait : callable, optional
        Called with a progress message if functions must be woken, and once per state of an attempt if the run waits for
        its coordinator or a lane for long.

    Raises
    ------
    SettingError
        The stack or the account cannot carry out such runs.
    """

    def __init__(
        self,
        channel: str,
        stack: StackSpec,
        settings: RunSettings,
        *,
        need_mb: Callable[[RunSpec], float],
        memory_mb: int | None = None,
        synchronous: bool = False,
        runs: int = 1,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        assert stack.functions is not None  # noqa: S101 - checked by the caller
        self._channel = channel
        self._stack = stack
        self._functions: FunctionsSpec = stack.functions
        self._need_mb = need_mb
        self._memory_mb = memory_mb
        self._synchronous = synchronous
        self._on_wait = on_wait
        self._meter = UsageMeter()
        self._of_coordinators = Usage()
        self._lock = threading.Lock()  # guards _of_coordinators
        self._followed: set[str] = set()
        self._ended: dict[str, RunStatus] = {}
        # Fail before anything is sent if no attempt could succeed.
        any_run = RunSpec("0" * 32, 0, "0" * 32, 1, 1, 0.0, settings)
        check_fit(RunEvent(any_run, channel, memory_mb or self._functions.workers[0].memory_mb), stack)
        self._clients = Clients.of_stack(stack)
        try:
            usable = [worker for worker in stack.functions.workers if memory_mb in {None, worker.memory_mb}]
            check_concurrency(self._clients.functions, usable, settings.workers, self._meter, runs)
            wake(self._clients.functions, self._functions.coordinator, self._meter, on_sleep=self._tell_sleep)
            self._runs, self._plans = open_buckets(self._clients, stack, self._meter)
        except BaseException:
            self._clients.close()
            raise

    @property
    def plans(self) -> Store:
        """The store of manifests and shards."""
        return self._plans

    @property
    def runs(self) -> Store:
        """The store of inputs and results."""
        return self._runs[0]

    @property
    def stack(self) -> StackSpec:
        """The stack whose services and functions are used."""
        return self._stack

    def memory_mb(self, spec: RunSpec) -> int:
        """Return the memory in MB of the worker function that would carry out a run."""
        return self._memory_mb or self._fitting(spec)

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Have the coordinator carry out one attempt, and wait for its end.

        Parameters
        ----------
        spec : RunSpec
        on_layer : callable
            Called with the number of layers that rank 0 has completed.

        Raises
        ------
        RunError
            The coordinator did not start, failed without a status, or did not end in time.
        StackError
            Lambda refused the invocation.
        """
        event = RunEvent(spec, self._channel, self.memory_mb(spec))
        self._followed.add(spec.run)
        self._request(event)
        status = self._follow(event, on_layer, None)
        if status.state == "queued":
            status = self._admitted(event, status, on_layer)
        self._ended[spec.run] = status
        launched = status.launched or status.received
        with within(spec.settings.clocks.run_s):
            metrics = self._read_metrics(spec, status)
        if metrics is None:
            return Ended(launched, [], status.error)
        return Ended(
            launched,
            metrics.ranks,
            status.error,
            metrics.memory_mb,
            metrics.coordinated,
            metrics.coordinator_init_s,
        )

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if it does not exist."""
        inline = self._ended[spec.run].results if spec.run in self._ended else None
        if inline is not None:
            return inline[rank] if rank < len(inline) else None
        return self._runs[0].get(spec.result_key(rank))

    def forget(self, run: str) -> None:
        """Delete the objects of a run except its metrics and its coordinator's claim, which exposes repeated events.

        A thread that still waits for the run stops waiting. Frames of the object channel are left to expire: listing
        them costs more in requests than storing them.
        """
        self._followed.discard(run)
        self._ended.pop(run, None)
        found = [info.key for info in self._runs[0].list(run_folder(run))]
        self._runs[0].delete([key for key in found if not key.endswith(("/metrics", "/coordinator"))])

    def usage(self) -> Usage:
        """Return the usage so far of this client and of the coordinators, without that of the ranks."""
        with self._lock:
            return self._meter.snapshot() + self._of_coordinators

    def close(self) -> None:
        """Close all stores and clients."""
        for store in (*self._runs, self._plans):
            store.close()
        self._clients.close()

    def _read_metrics(self, spec: RunSpec, status: RunStatus) -> RunMetrics | None:
        """Return the metrics that the coordinator wrote, or None if it wrote none, and add its usage to the total."""
        key = metrics_key(spec.prefix)
        data = self._runs[0].get(key)
        if data is None:
            if status.error is None:
                raise RunError(f"{key} is missing from the store although the run succeeded", operation="collect")
            return None
        metrics = RunMetrics.from_bytes(data, key)
        with self._lock:
            self._of_coordinators += metrics.coordinator
        return metrics

    def _fitting(self, spec: RunSpec) -> int:
        need_mb, workers = self._need_mb(spec), self._functions.workers
        sizes = [
            worker.memory_mb
            for worker in workers
            if worker.managed is None or worker.managed.environments >= spec.settings.workers
        ] or [workers[-1].memory_mb]
        # An estimate above all sizes may be too high, so try the largest; if it was right, the run fails for memory.
        return next((size for size in sizes if size >= need_mb), sizes[-1])

    # --- invoking the coordinator ------------------------------------------------------------------------------------

    def _request(self, event: RunEvent) -> None:
        payload = json.dumps(event.to_json()).encode()
        if self._synchronous:
            invoke = partial(self._invoke_and_wait, payload, self._longest_s(event))
        else:
            invoke = partial(self._invoke, payload)
        with within(WAKING_S + event.spec.settings.clocks.run_s):
            until_awake(invoke, self._functions.coordinator, on_sleep=self._tell_sleep)

    def _tell_sleep(self) -> None:
        self._on_wait("Lambda is waking the coordinator, which was unused for weeks; that takes up to 3 minutes")

    def _invoke(self, payload: bytes) -> None:
        """Invoke the coordinator asynchronously."""
        request(
            "lambda.invoke",
            f"invoke the coordinator {self._functions.coordinator}",
            lambda: self._clients.functions.invoke(
                FunctionName=self._functions.coordinator, InvocationType="Event", Payload=payload
            ),
            meter=self._meter,
            retry=_RETRY,
            action="lambda:InvokeFunction",
        )

    def _invoke_and_wait(self, payload: bytes, longest_s: float) -> None:
        """Invoke the coordinator synchronously, without retries: each would be another invocation.

        If the connection is lost, the run continues, and `_follow` waits for its end by polling the status.
        """
        what = f"invoke the coordinator {self._functions.coordinator}"
        client = self._clients.functions_answering_within(min(longest_s, self._functions.timeout_s) + _GRACE_S)
        self._meter.request("lambda.invoke")
        try:
            answer = client.invoke(FunctionName=self._functions.coordinator, Payload=payload)
            body = answer["Payload"].read()
        except ClientError as error:
            raise refusal(what, error, "lambda:InvokeFunction") from error
        except (*SDK_ERRORS, OSError):
            return
        finally:
            client.close()
        if "FunctionError" in answer:
            raise _crash(body)

    # --- polling the status ------------------------------------------------------------------------------------------

    def _admitted(self, event: RunEvent, queued: RunStatus, on_layer: Callable[[float], None]) -> RunStatus:
        """Invoke the coordinator again until it admits a run that was told to wait, and return the final status.

        The wait may be as long as the run clock, the longest that the caller wants to wait for the run itself.
        """
        spec, began, pause = event.spec, time.monotonic(), QUEUE_BACKOFF.first_s
        event = replace(event, queued_since=queued.received)
        self._on_wait(
            "the run waits for others of the stack to end: together they need more functions than may run at a time; "
            f"see fsd runs list (run {spec.run})"
        )
        while queued.state == "queued":
            if time.monotonic() - began > spec.settings.clocks.run_s:
                raise StartError(
                    f"run {spec.run} was not admitted within {spec.settings.clocks.run_s:g} s: other runs of the stack "
                    f"need all functions that may run at a time; use fewer workers than {spec.settings.workers}, or "
                    "ask AWS for a higher concurrency quota",
                    operation="admit",
                )
            self._sleep(spec, random.uniform(pause / 2, pause))  # noqa: S311 -- spreads load, no secret
            pause = QUEUE_BACKOFF.after(pause)
            self._request(event)
            queued = self._follow(event, on_layer, queued)
        return queued

    def _follow(self, event: RunEvent, on_layer: Callable[[float], None], old: RunStatus | None) -> RunStatus:
        """Poll the status until the attempt has ended or must be requested again; ignore `old`, the status before."""
        spec = event.spec
        state, since, told, slow = "", time.monotonic(), set[str](), 0
        progress_at, pause = since + PROGRESS_S, STATUS_BACKOFF.first_s
        pulse: Pulse | None = None
        while True:
            due = since + self._patience(event, state)
            try:
                with within(due - time.monotonic()):
                    status = self._status(spec, old)
                    is_lost = pulse is not None and pulse.is_lost(time.monotonic())
            except StoreError as error:
                if time.monotonic() < due:
                    raise
                raise self._overdue(event, state, time.monotonic() - since) from error
            now = time.monotonic()
            slow = self._name_stragglers(status, slow)
            if status is not None and (status.is_over or status.state == "queued"):
                return status
            if is_lost:
                lost = self._lost(spec)
                give_up(self._clients, self._stack, self._runs, spec, self._channel, lost)
                raise lost
            if status is not None and status.state != state:
                state, since = status.state, now
                pulse = Pulse(self._runs[0], heartbeat_key(spec.prefix), now)
            if state not in told and state in _WAITS and now - since > (0.0 if state == "waking" else _SLOW_S):
                told.add(state)
                self._on_wait(f"{_WAITS[state]} (run {spec.run})")
            if now > since + self._patience(event, state):
                raise self._overdue(event, state, now - since)
            if state == "running" and now >= progress_at:
                progress_at = now + PROGRESS_S
                self._report_progress(spec, on_layer)
            self._sleep(spec, pause)
            pause = STATUS_BACKOFF.after(pause)

    def _name_stragglers(self, status: RunStatus | None, named: int) -> int:
        """Name those that a status has beyond the first `named`; return how many have been named then."""
        stragglers = () if status is None else status.stragglers[named:]
        for straggler in stragglers:
            self._on_wait(str(straggler))
        return named + len(stragglers)

    def _sleep(self, spec: RunSpec, seconds: float) -> None:
        """Sleep, and raise `AbortedError` if the run was given up meanwhile."""
        time.sleep(seconds)
        if spec.run not in self._followed:
            raise AbortedError(f"run {spec.run} was abandoned by its client", operation="run")

    def _status(self, spec: RunSpec, old: RunStatus | None) -> RunStatus | None:
        key = status_key(spec.run)
        data = self._runs[0].get(key)
        if data is None:
            return None
        status = RunStatus.from_bytes(data, key)
        return status if status.attempt == spec.attempt and status != old else None  # still of an earlier invocation

    def _patience(self, event: RunEvent, state: str) -> float:
        """Return how long a state may last, in seconds; after that the coordinator must have died."""
        clocks = event.spec.settings.clocks
        if state == "":
            return clocks.start_s + _EVENT_AGE_S
        if state == "waking":
            return WAKING_S + _GRACE_S
        if state == "waiting":
            return event.lane_wait_s + clocks.start_s + _GRACE_S
        return clocks.run_s + _GRACE_S

    def _longest_s(self, event: RunEvent) -> float:
        """Return how long a coordinator that has been started may take, in seconds."""
        return sum(self._patience(event, state) for state in ("waking", "waiting", "running"))

    def _overdue(self, event: RunEvent, state: str, seconds: float) -> RunError:
        run, coordinator = event.spec.run, function_name(self._functions.coordinator)
        if state == "":
            return StartError(
                f"the coordinator {coordinator} did not start run {run} within {seconds:.0f} s: Lambda throttles it "
                "(the account's concurrency is used up) or it fails at startup; see its log, and run fsd stack check",
                operation="start",
            )
        return DeadlineError(
            f"run {run} has been {state!r} for {seconds:.0f} s, longer than allowed: its coordinator {coordinator} "
            "ended without writing a final status (see its log); the run's lane and objects will expire",
            operation="run",
        )

    def _lost(self, spec: RunSpec) -> RunError:
        coordinator = function_name(self._functions.coordinator)
        return RunError(
            f"the coordinator {coordinator} of run {spec.run} stopped answering: it wrote no heartbeat for "
            f"{SILENCE_S:g} s; see its log, and try again",
            operation="coordinate",
            retryable=True,
        )

    def _report_progress(self, spec: RunSpec, on_layer: Callable[[float], None]) -> None:
        with suppress(StoreError):  # progress is optional
            progress = Progress.from_bytes(self._runs[0].get(progress_key(spec.prefix)) or b"")
            if progress is not None:
                on_layer(float(progress.layers))


def _crash(body: bytes) -> RunError:
    """Return the error for a coordinator that failed without a status, from the payload of Lambda's response."""
    try:
        value = load_json(body)
        text = f"{value.get('errorType', 'error')}: {value['errorMessage']}"
    except (ValueError, KeyError, AttributeError):
        text = body[:200].decode(errors="replace")
    return RunError(f"the coordinator failed: {text}", operation="coordinate")
