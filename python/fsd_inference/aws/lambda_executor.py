"""A session's attempts on the functions of a stack: ask the coordinator, follow the run's status, read what it left."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from botocore.exceptions import ClientError

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients, refusal, request
from fsd_inference.aws.concurrency import check_concurrency
from fsd_inference.aws.events import RunEvent, check_fit
from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.aws.status import RunStatus, metrics_key, progress_key, status_key
from fsd_inference.channels.sdk import SDK_ERRORS
from fsd_inference.config import RetrySettings, RunSettings
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec, run_folder
from fsd_inference.errors import AbortedError, DeadlineError, RunError, StartError, StoreError
from fsd_inference.limits import PROGRESS_S, STATUS_BACKOFF
from fsd_inference.stack_description import FunctionsSpec, StackSpec
from fsd_inference.store.base import Store
from fsd_inference.usage import Usage, UsageMeter

_RETRY = RetrySettings()
_EVENT_AGE_S = 60.0
"""Lambda drops an event that it could not deliver within this time (maximum_event_age_in_seconds)."""
_GRACE_S = 30.0
"""How long after its time a coordinator may take to write how the run ended."""
_SLOW_S = 10.0
"""How long a state that only waits may last before the caller is told of it."""
_WAITS = {
    "": "the coordinator has not begun yet: Lambda starts it, or has no concurrency left for it",
    "waiting": "no lane is free; see fsd runs list",
}


class LambdaExecutor:
    """Functions of a stack, and its buckets.

    Parameters
    ----------
    channel : {"serial", "queue", "object"}
        What the ranks exchange frames over.
    stack : StackSpec
        With functions.
    settings : RunSettings
        Of all its runs.
    need_mb : callable
        Estimates the memory that a rank of an attempt needs: the smallest worker function that has it is used.
    memory_mb : int, optional
        Use the worker function of this size instead.
    synchronous : bool, optional
        Wait for the coordinator's answer on one connection, instead of asking now and then how far the run is.
    runs : int, optional
        Runs at a time: attempts of different runs may be carried out by several threads.
    on_wait : callable, optional
        Called with what is waited for, once that has taken a while.

    Raises
    ------
    SettingError
        The stack, or the account, cannot carry out such runs.
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
        assert stack.functions is not None  # noqa: S101 - the caller looked
        self._channel = channel
        self._stack = stack
        self._functions: FunctionsSpec = stack.functions
        self._need_mb = need_mb
        self._memory_mb = memory_mb
        self._synchronous = synchronous
        self._on_wait = on_wait
        self._meter = UsageMeter()
        self._of_coordinators = Usage()
        self._lock = threading.Lock()  # of what coordinators asked for
        self._followed: set[str] = set()
        self._ended: dict[str, RunStatus] = {}
        # Before anything is sent: what no attempt could change.
        any_run = RunSpec("0" * 32, 0, "0" * 32, 1, 1, 0.0, settings)
        check_fit(RunEvent(any_run, channel, memory_mb or self._functions.workers[0].memory_mb), stack)
        self._clients = Clients.of_stack(stack)
        try:
            check_concurrency(self._clients, settings.workers, self._meter, runs)
            self._runs, self._plans = open_buckets(self._clients, stack, self._meter)
        except BaseException:
            self._clients.close()
            raise

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""
        return self._plans

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""
        return self._runs[0]

    @property
    def stack(self) -> StackSpec:
        """Whose services and functions are used."""
        return self._stack

    def memory_mb(self, spec: RunSpec) -> int:
        """Return the size of the functions that would carry out a run."""
        return self._memory_mb or self._fitting(spec)

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Have the coordinator carry out one attempt, and wait until it has ended."""
        event = RunEvent(spec, self._channel, self.memory_mb(spec))
        payload = json.dumps(event.to_json()).encode()
        self._followed.add(spec.run)
        if self._synchronous:
            self._answer(payload)
        else:
            self._ask(payload)
        status = self._follow(event, on_layer)
        self._ended[spec.run] = status
        launched = status.launched or status.received
        metrics = self._read_metrics(spec, status)
        if metrics is None:
            return Ended(launched, [], status.error)
        return Ended(launched, metrics.ranks, status.error, metrics.memory_mb, metrics.coordinated)

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if it is not there."""
        inline = self._ended[spec.run].results if spec.run in self._ended else None
        if inline is not None:
            return inline[rank] if rank < len(inline) else None
        return self._runs[0].get(spec.result_key(rank))

    def forget(self, run: str) -> None:
        """Delete the objects of a run but its metrics, and what tells a repeated event that it is late.

        A thread that still waits for the run stops waiting.
        What ranks exchanged through objects is left to expire: finding it costs more requests than it costs to keep.
        """
        self._followed.discard(run)
        self._ended.pop(run, None)
        found = [info.key for info in self._runs[0].list(run_folder(run))]
        self._runs[0].delete([key for key in found if not key.endswith(("/metrics", "/coordinator"))])

    def usage(self) -> Usage:
        """Return all requests so far but those of the ranks; the coordinators' among them."""
        with self._lock:
            return self._meter.snapshot() + self._of_coordinators

    def close(self) -> None:
        """Close what is open."""
        for store in (*self._runs, self._plans):
            store.close()
        self._clients.close()

    def _read_metrics(self, spec: RunSpec, status: RunStatus) -> RunMetrics | None:
        """Count what the coordinator asked for and return the metrics that it wrote, if it did."""
        key = metrics_key(spec.prefix)
        data = self._runs[0].get(key)
        if data is None:
            if status.error is None:
                raise RunError(f"{key} is not in the store although the run ended well", operation="collect")
            return None
        metrics = RunMetrics.from_bytes(data, key)
        with self._lock:
            self._of_coordinators += metrics.coordinator
        return metrics

    def _fitting(self, spec: RunSpec) -> int:
        need_mb, sizes = self._need_mb(spec), [worker.memory_mb for worker in self._functions.workers]
        # An estimate above all sizes may be too high: the run says so if it was not.
        return next((size for size in sizes if size >= need_mb), sizes[-1])

    # --- asking ------------------------------------------------------------------------------------------------------

    def _ask(self, payload: bytes) -> None:
        """Hand the event to Lambda, which starts the coordinator as soon as it can."""
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

    def _answer(self, payload: bytes) -> None:
        """Invoke the coordinator and wait for its end, once: a repeat would be another invocation.

        A connection that is lost meanwhile does not end the run, which is then followed by its status.
        """
        what = f"invoke the coordinator {self._functions.coordinator}"
        client = self._clients.functions_answering_within(self._functions.timeout_s + _GRACE_S)
        self._meter.request("lambda.invoke")
        try:
            answer = client.invoke(FunctionName=self._functions.coordinator, Payload=payload)
            told = answer["Payload"].read()
        except ClientError as error:
            raise refusal(what, error, "lambda:InvokeFunction") from error
        except (*SDK_ERRORS, OSError):
            return
        finally:
            client.close()
        if "FunctionError" in answer:
            raise _crash(told)

    # --- following ---------------------------------------------------------------------------------------------------

    def _follow(self, event: RunEvent, on_layer: Callable[[float], None]) -> RunStatus:
        """Return the status in which the attempt ended."""
        spec = event.spec
        state, since, has_waited = "", time.monotonic(), False
        progress_at, pause = since + PROGRESS_S, STATUS_BACKOFF.first_s
        while True:
            status = self._status(spec)
            now = time.monotonic()
            if status is not None and status.is_over:
                return status
            if status is not None and status.state != state:
                state, since = status.state, now
            if not has_waited and state != "running" and now - since > _SLOW_S:
                has_waited = True
                self._on_wait(f"{_WAITS[state]} (run {spec.run})")
            if now - since > self._patience(event, state):
                raise self._overdue(event, state, now - since)
            if state == "running" and now >= progress_at:
                progress_at = now + PROGRESS_S
                self._tell(spec, on_layer)
            time.sleep(pause)
            if spec.run not in self._followed:
                raise AbortedError(f"run {spec.run} was given up", operation="run")
            pause = STATUS_BACKOFF.after(pause)

    def _status(self, spec: RunSpec) -> RunStatus | None:
        key = status_key(spec.run)
        data = self._runs[0].get(key)
        if data is None:
            return None
        status = RunStatus.from_bytes(data, key)
        return status if status.attempt == spec.attempt else None  # what an earlier attempt left

    def _patience(self, event: RunEvent, state: str) -> float:
        """Return how long a state may last, in seconds, before nobody is there to change it."""
        clocks = event.spec.settings.clocks
        if state == "":
            return clocks.start_s + _EVENT_AGE_S
        if state == "waiting":
            return event.lane_wait_s + clocks.start_s + _GRACE_S
        return clocks.run_s + _GRACE_S

    def _overdue(self, event: RunEvent, state: str, seconds: float) -> RunError:
        run, coordinator = event.spec.run, self._functions.coordinator.rpartition(":")[2]
        if state == "":
            return StartError(
                f"the coordinator {coordinator} did not begin run {run} within {seconds:.0f} s: Lambda throttles it "
                "(the account's concurrency is used up) or it fails when it starts; see its log, and fsd stack check",
                operation="start",
            )
        return DeadlineError(
            f"run {run} has been {state!r} for {seconds:.0f} s, longer than it may: its coordinator {coordinator} "
            "ended without saying how (see its log); what the run holds expires",
            operation="run",
        )

    def _tell(self, spec: RunSpec, on_layer: Callable[[float], None]) -> None:
        with suppress(StoreError, ValueError):  # nothing depends on it
            on_layer(float(self._runs[0].get(progress_key(spec.prefix)) or b""))


def _crash(told: bytes) -> RunError:
    """Return the error of a function that ended without an answer, from what Lambda says of it."""
    try:
        value = json.loads(told)
        text = f"{value.get('errorType', 'error')}: {value['errorMessage']}"
    except (ValueError, KeyError, AttributeError):
        text = told[:200].decode(errors="replace")
    return RunError(f"the coordinator failed: {text}", operation="coordinate")
