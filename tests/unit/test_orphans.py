"""What ends the ranks of an attempt whose coordinator has died, and what it leaves alone."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fsd_inference.aws import orphans
from fsd_inference.aws.admission import ADMISSION_FOLDER, Admission
from fsd_inference.aws.concurrency import Concurrency
from fsd_inference.aws.lanes import LaneTable
from fsd_inference.aws.orphans import attempt_of, end_orphans, end_status, give_up
from fsd_inference.aws.runs import unfinished
from fsd_inference.aws.status import RunStatus, status_key
from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StoreError
from fsd_inference.rank_report import RankReport
from fsd_inference.stack_description import LaneSpec, StackSpec
from fsd_inference.store.memory import MemoryStore

RUN, OTHER = "0123456789abcdef" * 2, "f" * 32
RANKS = 4
STARTED = (0, 1, 3)
SPEC = RunSpec(RUN, 1, "b" * 32, 10, 4, 0.0, RunSettings(workers=RANKS))
LANES = tuple(LaneSpec(("t",), tuple(f"http://q{lane}{rank}" for rank in range(RANKS))) for lane in range(3))
STACK = StackSpec("s", None, "us-east-1", LANES, ("runs",), "networks", purge_settle_s=0.0)


class World:
    """A bucket, and the ranks of an attempt, which write their reports once they are aborted."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.told: set[int] = set()
        self.lane: int | None = None
        self.purged: list[str] = []
        for rank in STARTED:
            self.store.put(SPEC.claim_key(rank), b"")
        settings: Any = {"settle_s": 0.0, "lifetime_s": 1200.0}
        self.lanes = LaneTable(self.store, len(LANES), purge=lambda _: None, **settings)

    def open_channel(self, *given: Any, spec: RunSpec, rank: int, lane: int | None) -> Any:
        assert (spec.run, spec.attempt, spec.plan) == (RUN, 1, SPEC.plan)
        assert given[3] in {"queue", "object"}
        assert rank in range(RANKS)
        self.lane = lane
        return SimpleNamespace(abort=self.abort, close=lambda: None)

    def abort(self, frame: Any) -> None:
        self.told.update(frame.targets)
        for rank in self.told & set(STARTED):
            self.store.put(SPEC.report_key(rank), json.dumps(RankReport(rank).to_json()).encode())

    def purge_queue(self, QueueUrl: str) -> None:
        assert self.told == set(range(RANKS))
        self.purged.append(QueueUrl)

    def end(self, channel: str) -> list[int]:
        return end_orphans(SimpleNamespace(sqs=self), STACK, [self.store], SPEC, channel)  # type: ignore[arg-type]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(orphans, "open_channel", made.open_channel)
    monkeypatch.setattr(orphans, "LONGEST_POLL_S", 0.0)
    return made


def test_ranks_are_told_before_their_lane_is_purged_and_free(world: World) -> None:
    mine = world.lanes.acquire(RUN, 1, 900.0, 0.0).lane
    others = world.lanes.acquire(OTHER, 1, 900.0, 0.0).lane
    assert world.end("queue") == [mine]
    assert world.lane == mine
    assert sorted(world.purged) == sorted(LANES[mine].queue_urls)
    assert {state.lane: state.state for state in world.lanes.look()} == {mine: "free", others: "held"}


def test_ranks_over_objects_are_told(world: World) -> None:
    assert world.end("object") == []
    assert (world.told, world.lane, world.purged) == (set(range(RANKS)), None, [])


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_ranks_that_have_not_started_find_their_places_taken(world: World, channel: str) -> None:
    world.lanes.acquire(RUN, 1, 900.0, 0.0)
    world.end(channel)
    assert all(world.store.put_if_absent(SPEC.claim_key(rank), b"") is None for rank in range(RANKS))


def test_the_functions_are_given_to_others(world: World) -> None:
    admission, limits = Admission(world.store), Concurrency(512, RANKS + 1, None)
    for run in (RUN, OTHER):
        admission.enter(run, 1, RANKS, limits, deadline_s=900.0, now=1.0, queued_since=None)
    world.end("object")
    (left,) = [info.key for info in world.store.list(ADMISSION_FOLDER)]
    assert left.startswith(f"{ADMISSION_FOLDER}waits-")
    assert OTHER in left


def test_what_cannot_be_ended_hides_no_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("out of reach")

    monkeypatch.setattr(world.store, "put_if_absent", refuse)
    give_up(SimpleNamespace(), STACK, [world.store], SPEC, "object", RunError("gone"))  # type: ignore[arg-type]
    assert world.told == set()


@pytest.mark.parametrize(("attempt", "state"), [(1, "done"), (2, "running")])
def test_the_status_of_an_attempt_that_ended_or_of_the_next_one_stays(attempt: int, state: Any) -> None:
    store = MemoryStore()
    written = json.dumps(RunStatus(RUN, attempt, SPEC.plan, "queue", RANKS, 10, state, 1.0).to_json()).encode()
    store.put(status_key(RUN), written)
    end_status(store, SPEC, RunError("gone"))
    assert store.get(status_key(RUN)) == written
    end_status(MemoryStore(), SPEC, RunError("gone"))  # nor is there one of a run that never began


def test_only_runs_that_have_begun_and_not_ended_are_ended_by_their_ids() -> None:
    store = MemoryStore()
    for number, state in enumerate(("queued", "waiting", "running", "done", "failed")):
        status = RunStatus(f"{number:032x}", 2, "c" * 32, "queue", 7, 10, state, 1.0)  # type: ignore[arg-type]
        store.put(status_key(status.run), json.dumps(status.to_json()).encode())
    found = unfinished(store, [f"{number:032x}" for number in range(9)])
    assert [status.state for status in found] == ["waiting", "running"]
    spec = attempt_of(found[1])
    assert (spec.run, spec.attempt, spec.plan, spec.settings.workers) == (f"{2:032x}", 2, "c" * 32, 7)
