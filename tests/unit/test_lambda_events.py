"""Events and statuses: round trips through JSON, and one-line errors for invalid ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws.events import RankEvent, RunEvent, check_depth, check_fit
from fsd_inference.aws.status import RunStatus
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import FsdError, InputError, SettingError, WorkerDiedError
from fsd_inference.limits import DEEPEST_TREE
from fsd_inference.stack_description import FunctionsSpec, LaneSpec, StackSpec, WorkerFunction

ID = "0123456789abcdef" * 2
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:s-"


def spec(workers: int = 4, branching: int = 2) -> RunSpec:
    settings = RunSettings(
        workers=workers,
        branching=branching,
        micro_batches=3,
        overlap=False,
        output="any",
        wire="float16",
        verify=True,
        clocks=Clocks(1.5, 2.5, 30.0),
    )
    return RunSpec(ID, 1, ID, 100, 16, 0.0, settings, first_sample=300)


def plain(value: dict[str, Any]) -> Any:
    return json.loads(json.dumps(value))


def test_a_run_event_comes_back() -> None:
    event = RunEvent(spec(), "queue", 1769, 12.0)
    assert RunEvent.from_json(plain(event.to_json())) == event


def test_a_run_event_needs_only_what_differs() -> None:
    event = RunEvent.from_json(
        {"version": 1, "run": ID, "plan": ID, "samples": 2, "features": 3, "channel": "object", "memory_mb": 512}
        | {"workers": 2}
    )
    assert event.spec.settings == RunSettings(workers=2)
    assert (event.spec.attempt, event.spec.first_sample) == (0, 0)


def test_a_rank_event_comes_back_and_leads_to_its_children() -> None:
    event = RankEvent(spec(), 1, 0, "queue", 1769, 0, "c0de", "57ac")
    assert RankEvent.from_json(plain(event.to_json())) == event
    child = event.child(3)
    assert (child.rank, child.starter, child.spec, child.lane) == (3, 1, event.spec, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "the event has version 2, and these functions read version 1"),
        ({"run": "x"}, "run must be 32 hexadecimal digits"),
        ({"samples": 0}, "samples must be a whole number >= 1"),
        ({"workers": 0}, "workers must be a whole number of at least 1"),
        ({"wire": "int8"}, "wire must be one of float32, bfloat16, float16, not 'int8'"),
        ({"wire": "float16", "workers": 1}, "one worker sends nothing: leave it out"),
        ({"workers": True}, "'workers' must be a whole number, not True"),
        ({"verify": 1}, "'verify' must be true or false, not 1"),
        ({"first_sample": -1}, "first_sample must be a whole number >= 0, not -1"),
        ({"overlap": 1}, "'overlap' must be true or false, not 1"),
        ({"channel": "local"}, "'channel' must be one of serial, queue, object, not 'local'"),
        ({"channel": "serial"}, "channel 'serial' takes a plan for 1 worker, not 4"),
        ({"stall_s": 0}, "clock stall_s must be a positive number"),
        ({"lane_wait_s": -1}, "'lane_wait_s' must be a number of seconds"),
        ({"colour": "red"}, "'colour' is an unknown field"),
        ({"plan": None}, "'plan' must be a string, not None"),
    ],
    ids=str,
)
def test_a_wrong_run_event(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        RunEvent.from_json(RunEvent(spec(), "queue", 1769).to_json() | change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "the event has version 2"),
        ({"rank": 4}, "'rank' must be from 0 to 3, not 4"),
        ({"rank": -1}, "'rank' must be from 0 to 3, not -1"),
        ({"lane": None}, "'channel' 'queue' and 'lane' None do not go together"),
        ({"channel": "object"}, "'channel' 'object' and 'lane' 0 do not go together"),
        ({"spec": {}}, "the run specification is not of version"),
        ({"spec": []}, "'spec' must be an object"),
        ({"code": ""}, "'code' must be a string, not ''"),
    ],
    ids=str,
)
def test_a_wrong_rank_event(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        RankEvent.from_json(RankEvent(spec(), 1, 0, "queue", 1769, 0, "c0de", "57ac").to_json() | change)
    assert message in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_other_values_are_refused_with_an_error_of_ours(value: object) -> None:
    for read in (RunEvent.from_json, RankEvent.from_json, RunStatus.from_json):
        with pytest.raises(FsdError):
            read(value)


@given(st.integers(1, 5000), st.integers(1, 6))
def test_trees_that_AWS_would_stop_are_refused_with_the_least_branching_that_fits(workers: int, branching: int) -> None:
    if Tree(workers, branching).depth <= DEEPEST_TREE:
        check_depth(workers, branching)
        return
    with pytest.raises(SettingError) as caught:
        check_depth(workers, branching)
    least = int(str(caught.value).rsplit(" ", 1)[1])
    assert Tree(workers, least).depth <= DEEPEST_TREE < Tree(workers, least - 1).depth


def test_what_a_stack_cannot_carry_out() -> None:
    functions = FunctionsSpec(f"{FUNCTION}c", (WorkerFunction(1769, f"{FUNCTION}w"),), "http://q", 900.0)
    lane = LaneSpec(("arn:aws:sns:us-east-1:0:t",), tuple(f"http://q{rank}" for rank in range(4)))
    stack = StackSpec("s", None, "us-east-1", (lane,), ("runs",), "networks", functions=functions)
    check_fit(RunEvent(spec(), "queue", 1769), stack)
    check_fit(RunEvent(spec(8), "object", 1769), stack)
    for event, message in (
        (RunEvent(spec(8), "queue", 1769), "stack s has queues for 4 workers, not 8"),
        (RunEvent(spec(), "queue", 512), "stack s has no workers of 512 MB; it has 1769"),
        (RunEvent(spec(40, 1), "object", 1769), "is 40 levels deep"),
    ):
        with pytest.raises(SettingError, match=message):
            check_fit(event, stack)
    with pytest.raises(SettingError, match="stack s has no functions"):
        check_fit(RunEvent(spec(), "queue", 1769), StackSpec("s", None, "r", (lane,), ("runs",), "networks"))


@pytest.mark.parametrize(
    "status",
    [
        RunStatus(ID, 0, ID, "queue", 4, 10, "waiting", 1.5),
        RunStatus(ID, 0, ID, "queue", 4, 10, "running", 1.5, 120, 2.5),
        RunStatus(ID, 0, ID, "serial", 1, 10, "done", 1.5, 120, 2.5, 3.5, None, (b"", b"\x00\xff")),
    ],
    ids=lambda status: status.state,
)
def test_a_status_comes_back(status: RunStatus) -> None:
    assert RunStatus.from_bytes(json.dumps(status.to_json()).encode(), "status/x") == status
    assert status.is_over == (status.state == "done")


def test_a_status_keeps_its_error() -> None:
    error = WorkerDiedError("rank 3 ended: out of memory", rank=3, operation="run")
    status = RunStatus(ID, 0, ID, "object", 4, 10, "failed", 1.5, 120, 2.5, 3.5, error)
    back = RunStatus.from_json(plain(status.to_json()))
    assert back.error is not None
    assert back.error.record() == error.record()
    assert isinstance(back.error, WorkerDiedError)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[]", "status/x: a run's status must be a JSON object"),
        (b"{", "status/x is not a run's status"),
        (b'{"version": 9}', "has version 9, and this program reads version 1"),
    ],
)
def test_a_wrong_status(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("[", "\\[")):
        RunStatus.from_bytes(data, "status/x")
