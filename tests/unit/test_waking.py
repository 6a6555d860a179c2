"""Functions that sleep: Lambda's answers as botocore's model has them, under virtual time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.response import StreamingBody
from botocore.stub import Stubber

from fsd_inference.aws import coordination
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.coordination import Coordination, Resources
from fsd_inference.aws.events import WAKE_EVENT, RankEvent, RunEvent
from fsd_inference.aws.handlers import coordinator, worker
from fsd_inference.aws.launcher import invoke_rank
from fsd_inference.aws.preflight import _differences, _waking
from fsd_inference.aws.status import RunStatus, status_key
from fsd_inference.aws.waking import until_awake, wake, wake_stack, wake_workers
from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AsleepError, StackError
from fsd_inference.limits import WAKING_S
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import Usage, UsageMeter
from tests.support.clock import Clock

ARN = "arn:aws:lambda:us-east-1:000000000000:function:s-"
WORKER = f"{ARN}worker-512"
FUNCTIONS = FunctionsSpec(
    f"{ARN}coordinator",
    (WorkerFunction(512, WORKER), WorkerFunction(1769, f"{ARN}worker-1769")),
    "http://127.0.0.1:1/failures",
    900.0,
)
STACK = StackSpec("s", None, "us-east-1", (), ("runs",), "networks", functions=FUNCTIONS)
INITIALIZING = "Lambda is initializing your function. It will be ready to invoke shortly."
PENDING = "The operation cannot be performed at this time. The function is currently in the following state: Pending"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("fsd_inference.aws.waking.time", made)
    monkeypatch.setattr("fsd_inference.retrying.time", made)
    return made


@pytest.fixture
def client() -> Iterator[Any]:
    session = boto3.Session("test", "test", region_name="us-east-1")
    made = session.client("lambda", endpoint_url="http://127.0.0.1:1")
    yield made
    made.close()


@pytest.fixture
def lambda_(client: Any) -> Iterator[Stubber]:
    """Answers of Lambda in the order in which they are asked for; all must have been asked for at the end."""
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def state(stub: Stubber, function: str, value: str, reason: str = "") -> None:
    answer = {"State": value, **({"StateReason": reason} if reason else {})}
    stub.add_response("get_function_configuration", answer, {"FunctionName": function})


def asleep(stub: Stubber, code: str = "CodeArtifactUserPendingException", status: int = 409) -> None:
    text = PENDING if code == "ResourceConflictException" else INITIALIZING
    stub.add_client_error("invoke", code, text, status)


def rank_event(deadline: float = 1e12) -> RankEvent:
    spec = RunSpec("a" * 32, 0, "b" * 32, 10, 4, deadline, RunSettings(workers=2))
    return RankEvent(spec, 0, None, "object", 512, None, "c0de", "57ac")


# --- one function -----------------------------------------------------------------------------------------------------


def test_a_sleeping_function_is_invoked_once_and_awaited(lambda_: Stubber, client: Any, clock: Clock) -> None:
    state(lambda_, WORKER, "Inactive")
    asleep(lambda_)
    for _ in range(20):
        state(lambda_, WORKER, "Pending")
    state(lambda_, WORKER, "Active")
    meter, told = UsageMeter(), list[int]()
    wake(client, WORKER, meter, on_sleep=lambda: told.append(1))
    assert told == [1]
    assert clock.now == 63
    assert meter.snapshot().requests == {"lambda.settings": 22, "lambda.invoke": 1}


def test_a_function_that_is_awake_costs_one_look(lambda_: Stubber, client: Any, clock: Clock) -> None:
    state(lambda_, WORKER, "Active")
    wake(client, WORKER, UsageMeter(), on_sleep=lambda: pytest.fail("it does not sleep"))
    assert clock.now == 0


def test_a_function_that_cannot_be_made_ready(lambda_: Stubber, client: Any, clock: Clock) -> None:
    state(lambda_, WORKER, "Pending")
    state(lambda_, WORKER, "Failed", "The image was deleted")
    with pytest.raises(StackError, match="function s-worker-512 cannot be invoked: The image was deleted"):
        wake(client, WORKER, UsageMeter())


def test_waking_has_an_end(lambda_: Stubber, client: Any, clock: Clock) -> None:
    for _ in range(61):
        state(lambda_, WORKER, "Pending")
    with pytest.raises(AsleepError, match=r"s-worker-512 was unused for weeks and is not ready after 180 s") as caught:
        wake(client, WORKER, UsageMeter())
    assert caught.value.retryable
    assert clock.now == WAKING_S == 180


def test_who_may_not_look_invokes(lambda_: Stubber, client: Any, clock: Clock) -> None:
    lambda_.add_client_error("get_function_configuration", "AccessDeniedException", "no", 403)
    wake(client, WORKER, UsageMeter())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("CodeArtifactUserPendingException", 409),
        ("CodeArtifactUserPendingException", 500),
        ("ResourceConflictException", 409),
        ("ResourceNotReadyException", 502),
    ],
)
def test_a_rejected_rank_is_started_when_its_function_is_awake(
    code: str, status: int, lambda_: Stubber, client: Any, clock: Clock
) -> None:
    for _ in range(36):
        asleep(lambda_, code, status)
    lambda_.add_response("invoke", {"StatusCode": 202})
    meter = UsageMeter()
    invoke_rank(client, WORKER, rank_event(), meter)
    assert clock.now == 108  # users report up to 106 s
    assert meter.snapshot().requests == {"lambda.invoke": 37}


def test_a_function_that_is_being_updated_does_not_sleep(lambda_: Stubber, client: Any, clock: Clock) -> None:
    lambda_.add_client_error("invoke", "ResourceConflictException", "An update is in progress", 409)
    with pytest.raises(StackError, match="it is being updated; try again in a minute") as caught:
        invoke_rank(client, WORKER, rank_event(), UsageMeter())
    assert not isinstance(caught.value, AsleepError)
    assert clock.now == 0


def test_a_rank_is_not_started_after_its_deadline(lambda_: Stubber, client: Any, clock: Clock) -> None:
    asleep(lambda_)
    with pytest.raises(AsleepError):
        invoke_rank(client, WORKER, rank_event(deadline=1.0), UsageMeter())


def test_what_is_repeated_is_told_once(clock: Clock) -> None:
    answers: list[Exception | int] = [AsleepError("no"), AsleepError("no"), 7]
    told: list[int] = []

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until_awake(call, WORKER, on_sleep=lambda: told.append(1)) == 7
    assert told == [1]


# --- all functions of a stack -----------------------------------------------------------------------------------------


def body(value: object) -> StreamingBody:
    data = json.dumps(value).encode()
    return StreamingBody(io.BytesIO(data), len(data))


class Sleepers:
    """Lambda, with functions that have slept and wake some seconds after they were invoked."""

    def __init__(self, clock: Clock, takes_s: dict[str, float]) -> None:
        self.clock, self.takes_s = clock, takes_s
        self.awake_at: dict[str, float] = {}
        self.answer: object = None

    def get_function_configuration(self, FunctionName: str) -> dict[str, Any]:
        if FunctionName not in self.awake_at:
            return {"State": "Inactive"}
        return {"State": "Active" if self.clock.now >= self.awake_at[FunctionName] else "Pending"}

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert json.loads(Payload) == WAKE_EVENT
        if self.get_function_configuration(FunctionName)["State"] != "Active":
            self.awake_at.setdefault(FunctionName, self.clock.now + self.takes_s[FunctionName])
            raise AsleepError("rejected")
        return {"Payload": body(self.answer)}

    def close(self) -> None:
        pass


def test_all_sizes_are_woken_and_those_that_cannot_be_are_named(clock: Clock) -> None:
    sleepers = Sleepers(clock, {WORKER: 40.0, f"{ARN}worker-1769": 1e6})
    (problem,) = wake_workers(cast("Any", sleepers), FUNCTIONS, UsageMeter())
    assert "s-worker-1769 was unused for weeks" in problem
    assert sleepers.get_function_configuration(WORKER) == {"State": "Active"}


@pytest.mark.parametrize("problems", [[], ["function s-worker-512 cannot be invoked"]])
def test_a_caller_has_the_coordinator_wake_the_workers(problems: list[str], clock: Clock) -> None:
    sleepers = Sleepers(clock, {FUNCTIONS.coordinator: 40.0})
    sleepers.answer = {"asleep": problems}
    clients = cast("Any", SimpleNamespace(functions=sleepers, functions_answering_within=lambda _: sleepers))
    assert wake_stack(clients, FUNCTIONS, UsageMeter()) == problems
    assert set(sleepers.awake_at) == {FUNCTIONS.coordinator}
    findings = list(_waking(clients, FUNCTIONS, UsageMeter()))
    assert [(finding.state, finding.text) for finding in findings] == (
        [("problem", problems[0])] if problems else [("ok", "all functions are awake")]
    )


def test_a_coordinator_that_cannot_wake_workers_is_a_problem(clock: Clock) -> None:
    sleepers = Sleepers(clock, {FUNCTIONS.coordinator: 0.0})
    sleepers.answer = {"errorType": "FileFormatError"}
    clients = cast("Any", SimpleNamespace(functions=sleepers, functions_answering_within=lambda _: sleepers))
    (finding,) = _waking(clients, FUNCTIONS, UsageMeter())
    assert finding.state == "problem"
    assert "it answered" in finding.text


def test_a_check_says_how_to_wake_a_function() -> None:
    found = {"State": "Inactive", "StateReason": "idle", "MemorySize": 512, "Timeout": 900.0}
    found["Environment"] = {"Variables": {"FSD_STACK_BUCKET": "networks"}}
    (text,) = _differences(found, STACK, FUNCTIONS, 512)
    assert "wake it with fsd stack check --wake" in text


def test_the_event_that_wakes_does_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # It opens nothing, and what its init phase took is no other invocation's.
    monkeypatch.setattr(worker, "environment", lambda: SimpleNamespace(take_init_s=lambda: 0.5))
    assert worker.handle(dict(WAKE_EVENT), cast("Any", None)) == {"awake": True}
    opened = SimpleNamespace(stack=STACK)
    warm = SimpleNamespace(
        meter=UsageMeter(),
        open=lambda: opened,
        take_init_s=lambda: 0.5,
        clients=SimpleNamespace(functions="lambda client"),
    )
    monkeypatch.setattr(coordinator, "environment", lambda: warm)
    monkeypatch.setattr(
        coordinator, "wake_workers", lambda client, functions, _: [f"{client} {len(functions.workers)}"]
    )
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 1000)
    assert coordinator.handle(dict(WAKE_EVENT), cast("Any", context)) == {"asleep": ["lambda client 2"]}


# --- the coordinator of a run -----------------------------------------------------------------------------------------


def test_the_size_a_run_needs_is_woken_before_its_lane_and_the_status_says_so(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, order = MemoryStore(), list[str]()
    sleepers = Sleepers(clock, {WORKER: 50.0})
    clients = cast("Clients", SimpleNamespace(functions=sleepers))
    used = Resources(clients, STACK, "57ac", [store], UsageMeter(), lambda _: None, "c0de", lambda _: None, set())
    settings = RunSettings(workers=2)
    event = RunEvent(RunSpec("a" * 32, 0, "b" * 32, 10, 4, 0.0, settings), "object", 512)

    def seen(name: str) -> None:
        status = RunStatus.from_bytes(store.get(status_key("a" * 32)) or b"", "status")
        order.append(f"{name} {status.state} at {clock.now:g}")

    sleep, lane = clock.sleep, Coordination._lane

    def sleeping(seconds: float) -> None:
        seen("sleeps")
        sleep(seconds)

    def taking(self: Coordination) -> Any:
        seen("takes a lane")
        return lane(self)

    monkeypatch.setattr(clock, "sleep", sleeping)
    monkeypatch.setattr(Coordination, "_lane", taking)
    manifest = SimpleNamespace(features=4, layers=3)
    monkeypatch.setattr(coordination, "load_manifest", lambda *_: manifest)

    def no_rank(*_: object) -> None:
        raise StackError("no rank in this test")

    monkeypatch.setattr(Coordination, "_run", no_rank)
    for _ in range(2):
        status = Coordination(used, event, ends=1e12, before=Usage(), init_s=0.0).carry_out()
        assert status is not None
        assert str(status.error) == "no rank in this test"
        event = replace(event, spec=replace(event.spec, attempt=event.spec.attempt + 1))
    assert order == [
        *(f"sleeps waking at {second}" for second in range(0, 51, 3)),
        "takes a lane running at 51",
        "takes a lane running at 51",
    ]
    assert used.awake == {WORKER}
