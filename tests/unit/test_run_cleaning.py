"""The choice of runs that cleaning considers ended, by status and by the store's clock."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fsd_inference.aws.runs import clean, find_traces, read_run, read_statuses
from fsd_inference.aws.status import RunStatus, State, status_key
from fsd_inference.errors import SettingError
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
LONGEST_S = 900.0


class Stack:
    """Two buckets of runs under a time of our own."""

    def __init__(self) -> None:
        self.now = 0.0
        clock = lambda: datetime.fromtimestamp(START + self.now, UTC)  # noqa: E731
        self.stores = [MemoryStore(clock=clock), MemoryStore(clock=clock)]

    def run(self, digit: str, state: State | None) -> str:
        run = digit * 32
        if state is not None:
            status = RunStatus(run, 0, run, "object", 2, 5, state, self.now)
            self.stores[0].put(status_key(run), json.dumps(status.to_json()).encode())
        self.stores[0].put(f"runs/{run}/input", b"")
        self.stores[1].put(f"a/{run}/0/layer-0-0-1", b"")
        return run

    def clean(self, older_than_s: float | None, *named: str) -> set[str]:
        return {traces.run for traces in clean(self.stores, LONGEST_S, named=named, older_than_s=older_than_s)}

    def left(self) -> set[str]:
        return set(find_traces(self.stores))


def test_ended_runs_go_by_their_age_and_others_when_nothing_can_be_alive_of_them() -> None:
    stack = Stack()
    done, failed = stack.run("1", "done"), stack.run("2", "failed")
    running, silent = stack.run("3", "running"), stack.run("4", None)
    assert stack.clean(10.0) == set()
    stack.now += 10
    assert stack.clean(10.0) == {done, failed}
    assert stack.clean(0.0) == set()
    stack.now += LONGEST_S
    assert stack.clean(0.0) == set()  # they may have waited before their time began
    stack.now += 600
    assert stack.clean(0.0) == {running, silent}
    assert stack.left() == set()
    assert {info.key for store in stack.stores for info in store.list("")} == {"lane-clock"}


def test_a_run_whose_lease_has_expired_has_ended() -> None:
    stack = Stack()
    dead, running = stack.run("1", None), stack.run("2", None)
    gone = clean(stack.stores, LONGEST_S, older_than_s=0.0, dead={dead})
    assert [traces.run for traces in gone] == [dead]
    assert stack.left() == {running}
    assert clean(stack.stores, LONGEST_S, named=[running], dead={running})


def test_a_named_run_that_goes_on_is_ended_first_and_what_that_writes_is_deleted_but_not_counted() -> None:
    stack, ended = Stack(), list[str]()
    running, done = stack.run("1", "running"), stack.run("2", "done")

    def end(status: RunStatus) -> None:
        ended.append(status.run)
        stack.stores[0].put(f"runs/{status.run}/0/claims/00000", b"")

    with pytest.raises(SettingError, match="no objects of run"):
        clean(stack.stores, LONGEST_S, named=[running, "3" * 32], end=end)
    assert ended == []
    gone = clean(stack.stores, LONGEST_S, named=[running, done], end=end)
    assert ended == [running]
    assert {traces.run: len(traces.objects) for traces in gone} == {running: 3, done: 3}
    assert stack.left() == set()


class Rounding(MemoryStore):
    """Tells whole seconds of a single object, and fractions in a listing."""

    def stat(self, key: str) -> ObjectInfo | None:
        info = super().stat(key)
        return None if info is None else replace(info, modified=info.modified.replace(microsecond=0))


def test_a_run_that_has_just_ended_is_no_younger_than_now() -> None:
    stack = Stack()
    stack.stores[0] = Rounding(clock=lambda: datetime.fromtimestamp(START + stack.now, UTC))
    stack.now = 5.7
    done = stack.run("1", "done")
    assert stack.clean(1.0) == set()
    assert stack.clean(0.0) == {done}


def test_a_run_that_still_writes_is_going_on() -> None:
    stack = Stack()
    run = stack.run("3", "running")
    stack.now += 2000
    stack.stores[1].put(f"b/{run}/0/layer-7-0-1", b"")
    assert stack.clean(0.0) == set()


def test_a_named_run_goes_whatever_its_state() -> None:
    stack = Stack()
    run, other = stack.run("3", "running"), stack.run("1", "done")
    assert stack.clean(None, run) == {run}
    assert stack.left() == {other}
    with pytest.raises(SettingError, match="the stack has no objects of run"):
        stack.clean(None, run)


def test_statuses_are_the_newest_and_those_that_can_be_read() -> None:
    stack = Stack()
    runs = []
    for digit in "123":
        stack.now += 10
        runs.append(stack.run(digit, "done"))
    stack.stores[0].put(f"status/{'f' * 32}", b"not ours")
    stack.stores[0].put("status/strange", b"")
    assert [status.run for status in read_statuses(stack.stores[0], 4)] == [runs[2], runs[1]]
    status, metrics = read_run(stack.stores[0], "11")
    assert (status.run, metrics) == (runs[0], None)
