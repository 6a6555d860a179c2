"""Attempts on functions, with a fake coordinator, under virtual time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from fsd_inference.aws import lambda_executor, orphans
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.events import RunEvent
from fsd_inference.aws.lambda_executor import LambdaExecutor
from fsd_inference.aws.notes import progress_key
from fsd_inference.aws.status import RunStatus, heartbeat_key, metrics_key, status_key
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import (
    AbortedError,
    AsleepError,
    DeadlineError,
    NotAllowedError,
    RunError,
    SettingError,
    StackError,
    StartError,
    StoreError,
    WorkerDiedError,
)
from fsd_inference.limits import HEARTBEAT_S, SILENCE_S
from fsd_inference.stack_description import FunctionsSpec, LaneSpec, ManagedInstances, StackSpec, WorkerFunction
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore
from fsd_inference.stragglers import Straggler
from fsd_inference.usage import Usage, UsageMeter

ID = "0123456789abcdef" * 2
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:s-"
SIZES = (512, 1769, 3538)
STACK = StackSpec(
    "s",
    None,
    "us-east-1",
    (LaneSpec(("arn:aws:sns:us-east-1:0:t",), tuple(f"http://q{rank}" for rank in range(8))),),
    ("runs",),
    "networks",
    functions=FunctionsSpec(
        f"{FUNCTION}coordinator",
        tuple(WorkerFunction(size, f"{FUNCTION}worker-{size}") for size in SIZES),
        "http://q",
        900.0,
    ),
)
SPEC = RunSpec(ID, 1, "f" * 32, 10, 4, 0.0, RunSettings(workers=4, clocks=Clocks(30.0, 60.0, 100.0)))
USAGE = {**Usage().to_json(), "requests": {"s3.put": 3}}


class World:
    """Buckets, a clock that only sleeping moves, and Lambda, whose coordinator `carry_out` is called when invoked."""

    def __init__(self) -> None:
        self.runs, self.plans = MemoryStore(), MemoryStore()
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], object]]] = []
        self.carry_out: Callable[[RunEvent], Any] = lambda _: None
        self.refusals: list[Exception] = []
        self.invocations: list[RunEvent] = []
        self.unreserved = 1000
        self.reserved: dict[int, int] = {}
        self.settings_error: Exception | None = None
        self.answers_within = 0.0
        self.states: list[str] = []  # of the coordinator, before it is "Active"

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        self.later.append((self.now + seconds, happens))

    # --- time ---

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [happens for when, happens in self.later if when <= self.now]
        self.later = [(when, happens) for when, happens in self.later if when > self.now]
        for happens in due:
            happens()

    # --- Lambda ---

    def invoke(self, FunctionName: str, Payload: bytes, InvocationType: str = "RequestResponse") -> dict[str, Any]:
        assert FunctionName == f"{FUNCTION}coordinator"
        if self.refusals:
            raise self.refusals.pop(0)
        event = RunEvent.from_json(json.loads(Payload))
        self.invocations.append(event)
        answer = self.carry_out(event)
        if InvocationType == "Event":
            return {}
        return {"Payload": io.BytesIO(json.dumps({}).encode()), **(answer or {})}

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        assert FunctionName == f"{FUNCTION}coordinator"
        return {"State": self.states.pop(0) if self.states else "Active"}

    def get_account_settings(self) -> dict[str, Any]:
        if self.settings_error is not None:
            raise self.settings_error
        return {"AccountLimit": {"UnreservedConcurrentExecutions": self.unreserved}}

    def get_function_concurrency(self, FunctionName: str) -> dict[str, Any]:
        reserved = self.reserved.get(int(FunctionName.removeprefix(f"{FUNCTION}worker-")))
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def close(self) -> None:
        pass

    # --- the run ---

    def put(self, state: str, spec: RunSpec = SPEC, **fields: Any) -> None:
        status = RunStatus(spec.run, spec.attempt, spec.plan, "queue", 4, 10, cast("Any", state), 1.0, 3, 2.0, **fields)
        self.runs.put(status_key(spec.run), json.dumps(status.to_json()).encode())

    def put_metrics(self, spec: RunSpec = SPEC) -> None:
        ranks = [{"rank": rank, "usage": Usage().to_json()} for rank in range(4)]
        coordinator = {"started": 1.0, "ended": 2.5, "usage": USAGE}
        value = {"version": 1, "memory_mb": 512, "coordinator": coordinator, "ranks": ranks}
        self.runs.put(metrics_key(spec.prefix), json.dumps(value).encode())

    def beat(self, seconds: float) -> None:
        """Have the coordinator beat for some seconds from now."""
        for number in range(1, int(seconds / HEARTBEAT_S) + 1):
            beat = partial(self.runs.put, heartbeat_key(SPEC.prefix), str(number).encode())
            self.at(number * HEARTBEAT_S, beat)

    def end(self, state: str = "done", **fields: Any) -> None:
        self.put_metrics()
        self.put(state, ended=3.0, **fields)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()

    def patient(seconds: float) -> World:
        made.answers_within = seconds
        return made

    clients = SimpleNamespace(functions=made, functions_answering_within=patient, close=lambda: None)
    monkeypatch.setattr(Clients, "of_stack", lambda *_: clients)

    def buckets(_: object, __: object, meter: UsageMeter) -> tuple[list[MemoryStore], MemoryStore]:
        made.runs.meter = made.plans.meter = meter
        return [made.runs], made.plans

    monkeypatch.setattr(lambda_executor, "open_buckets", buckets)
    monkeypatch.setattr(lambda_executor, "time", made)
    monkeypatch.setattr("fsd_inference.retrying.time", made)
    monkeypatch.setattr("fsd_inference.aws.waking.time", made)
    return made


def executor(
    channel: str = "queue", settings: RunSettings = SPEC.settings, stack: StackSpec = STACK, **more: Any
) -> LambdaExecutor:
    return LambdaExecutor(channel, stack, settings, **{"need_mb": lambda _: 100.0, **more})


def attempt(used: LambdaExecutor, told: list[float] | None = None) -> Any:
    return used.attempt(SPEC, (told if told is not None else []).append)


def refused(code: str, status: int = 400) -> ClientError:
    response = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(cast("Any", response), "Invoke")


# --- how runs end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [False, True])
def test_small_results_come_with_the_status(world: World, synchronous: bool) -> None:
    results = (b"a", b"", b"c", b"d")
    world.carry_out = lambda _: world.at(0 if synchronous else 7, partial(world.end, results=results))
    used = executor(synchronous=synchronous)
    ended = attempt(used)
    assert (ended.launched, ended.error, len(ended.reports)) == (2.0, None, 4)
    assert (ended.memory_mb, ended.coordinator) == (512, (1.0, 2.5))
    assert tuple(used.result(SPEC, rank) for rank in range(4)) == results
    assert used.usage().requests["s3.put"] == 3  # the coordinator's
    assert used.usage().requests["lambda.invoke"] == 1
    # As long as waking, waiting for a lane and running may take, which is less than the function's timeout.
    assert world.answers_within == ((180 + 30) + (120 + 30 + 30) + (100 + 30) + 30 if synchronous else 0.0)


def test_large_results_are_read_from_the_store(world: World) -> None:
    world.carry_out = lambda _: world.end()
    used = executor()
    assert attempt(used).error is None
    world.runs.put(SPEC.result_key(2), b"rows")
    assert (used.result(SPEC, 2), used.result(SPEC, 3)) == (b"rows", None)


def test_a_failed_run_says_why(world: World) -> None:
    why = WorkerDiedError("rank 3 ended", rank=3, operation="run")
    world.carry_out = lambda _: world.end("failed", error=why)
    ended = attempt(executor())
    assert isinstance(ended.error, WorkerDiedError)
    assert ended.error.record() == why.record()
    assert len(ended.reports) == 4


def test_a_failure_before_any_rank_leaves_no_metrics(world: World) -> None:
    world.carry_out = lambda _: world.put("failed", ended=3.0, error=RunError("no lane", retryable=True))
    ended = attempt(executor())
    assert (str(ended.error), ended.reports) == ("no lane", [])


def test_what_an_earlier_attempt_left_is_not_this_one_s_end(world: World) -> None:
    world.put("failed", replace(SPEC, attempt=0), ended=1.0, error=RunError("first"))
    world.carry_out = lambda _: world.at(5, world.end)
    assert attempt(executor()).error is None
    assert world.now >= 5


def test_progress_is_told(world: World) -> None:
    def carry_out(_: RunEvent) -> None:
        world.at(1, lambda: world.put("running"))
        for layer in range(1, 4):
            world.at(3 * layer, partial(world.runs.put, progress_key(SPEC.prefix), str(layer).encode()))
        world.at(12, world.end)

    world.carry_out = carry_out
    told: list[float] = []
    attempt(executor(), told)
    assert told == sorted(told)
    assert set(told) == {1.0, 2.0, 3.0}


def test_each_straggler_is_told_once(world: World) -> None:
    """Also one that only the final status names."""
    slow, slower = Straggler(2, 4.1, 7), Straggler(1, 9.0, 8)

    def carry_out(_: RunEvent) -> None:
        world.at(1, lambda: world.put("running"))
        world.at(3, lambda: world.put("running", stragglers=(slow,)))
        world.at(9, world.put_metrics)
        world.at(9, lambda: world.put("done", ended=9.0, stragglers=(slow, slower)))

    world.carry_out = carry_out
    waits: list[str] = []
    attempt(executor(on_wait=waits.append))
    assert waits == [str(slow), str(slower)]


def test_looks_are_few_and_counted(world: World) -> None:
    """A quick run is seen at once, a long one costs about a request a second."""
    seen = []
    for seconds in (0.3, 60.0):
        world.carry_out = partial(lambda after, _: world.at(after, world.end), seconds)
        world.runs.delete([status_key(ID)])
        before, used = world.now, executor()
        attempt(used)
        seen.append((world.now - before - seconds, world.runs.meter.snapshot().misses))
    assert seen[0][0] < 0.1
    assert seen[1][0] <= 1.0
    assert 60 < seen[1][1] < 90


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_a_coordinator_that_never_begins(world: World) -> None:
    with pytest.raises(StartError) as caught:
        attempt(executor())
    assert 90 <= world.now < 92  # the start clock, and what Lambda may keep an event for
    assert "did not start" in str(caught.value)
    assert "concurrency" in str(caught.value)
    assert caught.value.retryable


@pytest.mark.parametrize(("state", "seconds"), [("running", 130), ("waiting", 180), ("waking", 210)])
def test_a_coordinator_that_lives_and_does_not_go_on(world: World, state: str, seconds: float) -> None:
    def carry_out(_: RunEvent) -> None:
        world.at(5, lambda: world.put(state))
        world.beat(1000)

    world.carry_out = carry_out
    with pytest.raises(DeadlineError) as caught:
        attempt(executor())
    assert seconds <= world.now - 5 < seconds + 3
    assert f"run {ID} has been '{state}'" in str(caught.value)


@pytest.mark.parametrize("state", ["running", "waiting", "waking"])
@pytest.mark.parametrize("lives_s", [0.5, 42.0])
def test_a_coordinator_that_died_is_named_within_seconds_and_its_ranks_are_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str, lives_s: float
) -> None:
    ended: list[tuple[RunSpec, str]] = []
    monkeypatch.setattr(orphans, "end_orphans", lambda *given: ended.append(given[-2:]))

    def carry_out(_: RunEvent) -> None:
        world.put(state)
        world.beat(lives_s)

    world.carry_out = carry_out
    with pytest.raises(RunError, match=r"the coordinator s-coordinator of run .* stopped answering") as caught:
        attempt(executor())
    assert (caught.value.operation, caught.value.retryable) == ("coordinate", True)
    assert -HEARTBEAT_S <= world.now - lives_s - SILENCE_S < 2 * HEARTBEAT_S
    assert ended == [(SPEC, "queue")]
    status = RunStatus.from_bytes(world.runs.get(status_key(ID)) or b"", "status")
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.record() == caught.value.record()


def test_a_status_that_is_not_answered_in_time_is_overdue(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(key: str) -> None:
        assert key == status_key(ID)
        world.now += 91  # the start clock, and what Lambda may keep an event for
        raise StoreError("there was no time left before the deadline")

    monkeypatch.setattr(world.runs, "get", get)
    with pytest.raises(StartError, match="did not start run"):
        attempt(executor())


def test_a_heartbeat_is_looked_for_as_often_as_it_comes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    stat = world.runs.stat

    def counted(key: str) -> ObjectInfo | None:
        looks.append(key)
        return stat(key)

    def carry_out(_: RunEvent) -> None:
        world.put("running")
        world.beat(62)
        world.at(62, world.end)

    monkeypatch.setattr(world.runs, "stat", counted)
    world.carry_out = carry_out
    assert attempt(executor()).error is None
    assert len(looks) == 62 // HEARTBEAT_S


# --- functions that sleep ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize("code", ["CodeArtifactUserPendingException", "ResourceNotReadyException"])
def test_a_coordinator_that_sleeps_is_awaited_and_the_user_is_told(world: World, synchronous: bool, code: str) -> None:
    world.refusals = [refused(code, 409)] * 36
    world.carry_out = lambda _: world.end()
    told: list[str] = []
    used = executor(synchronous=synchronous, on_wait=told.append)
    assert attempt(used).error is None
    assert 106 < world.now < 112
    assert told == ["Lambda is waking the coordinator, which was unused for weeks; that takes up to 3 minutes"]
    assert used.usage().requests["lambda.invoke"] == 37


def test_a_coordinator_that_lambda_may_queue_events_for_is_woken_before_it_is_invoked(world: World) -> None:
    world.states = ["Pending"] * 20
    world.carry_out = lambda _: world.end()
    told: list[str] = []
    used = executor(on_wait=told.append)
    assert world.now == 60
    assert not world.invocations
    assert len(told) == 1
    assert attempt(used).error is None


def test_a_coordinator_that_does_not_wake(world: World) -> None:
    world.refusals = [refused("CodeArtifactUserPendingException", 409)] * 100
    with pytest.raises(AsleepError, match=r"s-coordinator was unused for weeks and is not ready after 180 s"):
        attempt(executor())
    assert 180 <= world.now < 184


def test_workers_that_sleep_are_awaited_and_the_user_is_told_at_once(world: World) -> None:
    def carry_out(_: RunEvent) -> None:
        world.at(1, lambda: world.put("waking"))
        world.at(181, lambda: world.put("waiting"))
        world.at(200, world.end)
        world.beat(200)

    world.carry_out = carry_out
    told: list[tuple[float, str]] = []
    assert attempt(executor(on_wait=lambda text: told.append((world.now, text)))).error is None
    assert [text.split(" (run")[0] for _, text in told] == [
        "Lambda is waking worker functions that were unused for weeks, which takes up to 3 minutes",
        "no lane is free; see fsd runs list",
    ]
    assert told[0][0] < 3


# --- admission --------------------------------------------------------------------------------------------------------


def queued(world: World, received: float) -> None:
    status = RunStatus(SPEC.run, SPEC.attempt, SPEC.plan, "queue", 4, 10, "queued", received)
    world.runs.put(status_key(SPEC.run), json.dumps(status.to_json()).encode())


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_run_that_must_wait_is_requested_until_it_is_admitted(world: World, synchronous: bool) -> None:
    refusals = 12

    def carry_out(event: RunEvent) -> None:
        after = partial(world.at, 0 if synchronous else 1)
        count = len(world.invocations)
        after(partial(queued, world, 1000.0 + count) if count <= refusals else world.end)

    world.carry_out = carry_out
    told: list[str] = []
    assert attempt(executor(synchronous=synchronous, on_wait=told.append)).error is None
    assert len(told) == 1
    assert told[0].startswith("the run waits for others of the stack to end")
    assert [event.queued_since for event in world.invocations] == [None] + [1001.0] * refusals
    assert {event.spec for event in world.invocations} == {SPEC}
    assert 12 * 2 < world.now < 13 * 6  # seconds between two requests


def test_a_run_is_not_admitted_in_time(world: World) -> None:
    world.carry_out = lambda _: world.at(1, lambda: queued(world, world.now))
    with pytest.raises(StartError, match=r"was not admitted within 100 s: .* use fewer workers than 4") as caught:
        attempt(executor())
    assert caught.value.retryable
    assert 100 < world.now < 110


def test_a_coordinator_that_is_lost_while_a_run_waits(world: World) -> None:
    world.carry_out = lambda _: world.at(1, lambda: queued(world, 5.0))  # the second writes nothing new
    with pytest.raises(StartError, match="did not start"):
        attempt(executor())


def test_a_waiting_run_that_is_given_up_is_not_requested_again(world: World) -> None:
    used = executor()
    world.carry_out = lambda _: world.at(1, lambda: queued(world, world.now))
    requested: list[int] = []

    def give_up() -> None:
        requested.append(len(world.invocations))
        used.forget(ID)

    world.at(30, give_up)
    with pytest.raises(AbortedError, match="was abandoned"):
        attempt(used)
    assert world.now < 40
    assert requested == [len(world.invocations)]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("synchronous", [False, True])
@pytest.mark.parametrize(
    ("refusal", "kind", "message"),
    [
        (
            refused("ResourceNotFoundException", 404),
            StackError,
            "404 ResourceNotFoundException (no); it does not exist",
        ),
        (refused("AccessDeniedException", 403), NotAllowedError, "must allow lambda:InvokeFunction"),
        (refused("TooManyRequestsException", 429), StackError, "429 TooManyRequestsException (no); the concurrency"),
    ],
    ids=["missing", "denied", "throttled"],
)
def test_an_invocation_that_is_refused(
    world: World, refusal: Exception, kind: type[Exception], message: str, synchronous: bool
) -> None:
    world.refusals = [refusal] * 10
    with pytest.raises(kind) as caught:
        attempt(executor(synchronous=synchronous))
    assert str(caught.value).startswith(f"cannot invoke the coordinator {FUNCTION}coordinator: the service answered 4")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    retried = cast("Any", caught.value).retryable and not synchronous
    assert len(world.refusals) == (4 if retried else 9)


def test_a_throttled_invocation_is_repeated_and_counted(world: World) -> None:
    world.refusals = [refused("TooManyRequestsException", 429)] * 2
    world.carry_out = lambda _: world.end()
    used = executor()
    assert attempt(used).error is None
    assert (used.usage().requests["lambda.invoke"], used.usage().retries) == (3, 2)


def test_a_synchronous_call_that_crashes(world: World) -> None:
    told = {"errorType": "Sandbox.Timedout", "errorMessage": "RequestId: 1 Error: Task timed out after 900.00 seconds"}
    world.carry_out = lambda _: {"FunctionError": "Unhandled", "Payload": io.BytesIO(json.dumps(told).encode())}
    with pytest.raises(RunError, match=r"the coordinator failed: Sandbox\.Timedout: RequestId: 1 Error: Task timed"):
        attempt(executor(synchronous=True))


def test_a_synchronous_call_that_loses_its_connection_is_followed(world: World) -> None:
    def carry_out(_: RunEvent) -> None:
        world.put("running")
        world.at(5, world.end)
        raise ReadTimeoutError(endpoint_url="x")

    world.carry_out = carry_out
    assert attempt(executor(synchronous=True)).error is None
    assert len(world.invocations) == 1


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        (RunSettings(workers=9), {}, "has queues for 8 workers, not 9"),
        (RunSettings(workers=8), {"memory_mb": 600}, "has no workers of 600 MB; it has 512, 1769, 3538"),
        (RunSettings(workers=40, branching=1), {"channel": "object"}, "use a branching of at least 2"),
        (RunSettings(workers=2), {"channel": "serial"}, "channel 'serial' takes a plan for 1 worker"),
    ],
)
def test_what_no_attempt_could_change_is_refused_at_once(
    world: World, settings: RunSettings, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        executor(settings=settings, **more)
    assert not world.invocations


def test_more_workers_than_the_account_can_run(world: World) -> None:
    world.unreserved = 4
    with pytest.raises(SettingError, match=r"4 workers and their coordinator .* \(4 unreserved.* at most 3 workers"):
        executor()
    world.unreserved = 5
    executor()
    world.settings_error = refused("AccessDeniedException", 403)
    executor()  # who may not ask tries


def test_workers_with_reserved_concurrency_are_limited_by_it_alone(world: World) -> None:
    world.unreserved, world.reserved = 400, dict.fromkeys(SIZES, 200)
    executor("object", RunSettings(workers=200))
    with pytest.raises(SettingError, match=r"201 workers .* reserved for workers of 512 MB \(200\): use at most 200"):
        executor("object", RunSettings(workers=201))
    world.unreserved, world.reserved = 100, {1769: 900}
    executor("object", RunSettings(workers=900))
    executor("object", RunSettings(workers=900), memory_mb=1769)
    with pytest.raises(SettingError, match=r"900 workers and their coordinator .* \(100 unreserved\): use at most 99"):
        executor("object", RunSettings(workers=900), memory_mb=512)


def test_more_replicas_than_the_account_can_run(world: World) -> None:
    world.unreserved = 7
    one = RunSettings(workers=1)
    with pytest.raises(
        SettingError, match=r"4 replicas with a coordinator each .* \(7 unreserved.* at most 3 replicas"
    ):
        executor("serial", one, runs=4)
    executor("serial", one, runs=3)
    world.reserved = dict.fromkeys(SIZES, 3)
    with pytest.raises(SettingError, match=r"4 replicas .* \(3 reserved for workers\): use at most 3 replicas"):
        executor("serial", one, runs=4)
    executor("serial", one, runs=3)


def test_who_waits_for_a_run_that_is_given_up_stops_waiting(world: World) -> None:
    used = executor()
    world.carry_out = lambda _: world.at(5, lambda: used.forget(ID))
    with pytest.raises(AbortedError, match="was abandoned"):
        attempt(used)
    assert world.now < 7


@pytest.mark.parametrize(("need_mb", "memory_mb", "used"), [(100, None, 512), (513, None, 1769), (9e9, None, 3538)])
def test_the_smallest_function_that_fits(world: World, need_mb: float, memory_mb: int | None, used: int) -> None:
    world.carry_out = lambda _: world.end()
    attempt(executor(need_mb=lambda _: need_mb, memory_mb=memory_mb))
    attempt(executor(need_mb=lambda _: need_mb, memory_mb=1769))
    assert [event.memory_mb for event in world.invocations] == [used, 1769]


def with_managed(environments: int) -> StackSpec:
    """The stack with one more worker function, on Managed Instances."""
    managed = WorkerFunction(
        32_768, f"{FUNCTION}worker-32768:$LATEST.PUBLISHED", ManagedInstances(environments, vcpus=16)
    )
    functions = cast("FunctionsSpec", STACK.functions)
    return replace(STACK, functions=replace(functions, workers=(*functions.workers, managed)))


@pytest.mark.parametrize(
    ("environments", "need_mb", "used"), [(4, 3_538, 3_538), (4, 3_539, 32_768), (4, 9e9, 32_768), (3, 9e9, 3_538)]
)
def test_managed_instances_take_what_fits_no_other_function_if_they_have_the_environments(
    environments: int, need_mb: float, used: int, world: World
) -> None:
    world.carry_out = lambda _: world.end()
    attempt(executor(stack=with_managed(environments), need_mb=lambda _: need_mb))
    assert [event.memory_mb for event in world.invocations] == [used]


def test_managed_instances_are_limited_by_their_environments(world: World) -> None:
    stack = with_managed(3)
    with pytest.raises(
        SettingError,
        match=r"4 workers need more execution environments .* 32768 MB .* \(3\): use at most 3 workers, or raise env",
    ):
        executor(stack=stack, memory_mb=32_768)
    one = RunSettings(workers=1)
    executor("serial", one, stack, memory_mb=32_768, runs=3)
    with pytest.raises(SettingError, match=r"4 replicas .* \(3 environments of workers\): use at most 3 replicas"):
        executor("serial", one, stack, memory_mb=32_768, runs=4)


def test_what_is_left_of_a_run(world: World) -> None:
    world.carry_out = lambda _: world.end()
    used = executor()
    attempt(used)
    for key in (SPEC.input_key, SPEC.claim_key(0), SPEC.result_key(0), SPEC.report_key(0), f"{SPEC.prefix}coordinator"):
        world.runs.put(key, b"")
    used.forget(ID)
    assert {info.key for info in world.runs.list("")} == {
        status_key(ID),
        metrics_key(SPEC.prefix),
        f"{SPEC.prefix}coordinator",
    }
