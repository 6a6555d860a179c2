"""Admission of runs: what fits beside what, order of arrival, races, and runs that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.aws import coordination
from fsd_inference.aws.admission import ADMISSION_FOLDER, Admission, Ticket, parse_ticket
from fsd_inference.aws.concurrency import Concurrency
from fsd_inference.aws.coordination import Coordination, Resources
from fsd_inference.aws.events import RunEvent
from fsd_inference.aws.runs import clean
from fsd_inference.aws.status import RunStatus
from fsd_inference.config import RunSettings
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import SettingError, StackError
from fsd_inference.limits import PLACE_S
from fsd_inference.stack_description import FunctionsSpec, StackSpec, WorkerFunction
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import Usage, UsageMeter

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
SHARED = Concurrency(512, 20, None)


def name(number: int) -> str:
    return f"{number:032x}"


class World:
    """A store whose clock gives whole seconds, as S3's does, and the runs that ask for admission."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = MemoryStore(clock=lambda: datetime.fromtimestamp(START + int(self.now), UTC))
        self.admission = Admission(self.store)

    def enter(
        self, run: int, workers: int, limits: Concurrency = SHARED, since: float | None = None, deadline_s: float = 100
    ) -> Ticket | None:
        self.now += 0.01
        return self.admission.enter(
            name(run), 0, workers, limits, deadline_s=deadline_s, now=START + self.now, queued_since=since
        )

    def since(self, run: int) -> float:
        """When a waiting run arrived, in the words of its client."""
        (ticket,) = [ticket for ticket in self.tickets() if ticket.run == name(run)]
        assert ticket.state == "waits"
        return ticket.arrived_ms / 1000

    def again(self, run: int, workers: int, limits: Concurrency = SHARED) -> Ticket | None:
        return self.enter(run, workers, limits, self.since(run))

    def tickets(self) -> list[Ticket]:
        found = [parse_ticket(info.key) for info in self.store.list(ADMISSION_FOLDER)]
        return [ticket for ticket in found if ticket is not None]


def held(ticket: Ticket | None) -> Ticket:
    assert ticket is not None
    return ticket


# --- what fits --------------------------------------------------------------------------------------------------------


def test_runs_are_admitted_while_all_their_functions_may_run_at_a_time() -> None:
    world = World()
    first, second = held(world.enter(1, 9)), held(world.enter(2, 9))  # 10 + 10 of 20
    assert world.enter(3, 1) is None
    world.admission.leave(first)
    third = held(world.again(3, 1))
    assert {ticket.run for ticket in world.tickets()} == {name(2), name(3)}
    for ticket in (second, third):
        world.admission.leave(ticket)
    assert list(world.store.list("")) == []


def test_workers_with_a_reservation_count_against_it_and_their_coordinator_against_the_account() -> None:
    world = World()
    small, large = Concurrency(512, 6, 8), Concurrency(1769, 6, 5)
    held(world.enter(1, 8, small))
    assert world.enter(2, 1, small) is None
    held(world.enter(3, 5, large))
    assert world.enter(4, 1, large) is None
    shared = Concurrency(3008, 6, None)
    held(world.enter(5, 1, shared))  # the coordinators of four runs, two of which wait, and these two
    assert world.enter(6, 1, shared) is None


def test_runs_on_managed_instances_share_their_environments_and_leave_the_account_to_others() -> None:
    world = World()
    managed = Concurrency(32_768, 20, 3, is_managed=True)
    first = held(world.enter(1, 2, managed))
    assert world.enter(2, 2, managed) is None  # one environment is left
    held(world.enter(3, 17))  # 18 of 20, and a coordinator for each of the others
    world.admission.leave(first)
    held(world.again(2, 2, managed))


@pytest.mark.parametrize(
    ("limits", "workers"),
    [
        (SHARED, 20),
        (Concurrency(512, 100, 5), 6),
        (Concurrency(1, 0, 9), 1),
        (Concurrency(32_768, 100, 3, is_managed=True), 4),
    ],
)
def test_a_run_that_can_never_fit_is_refused(limits: Concurrency, workers: int) -> None:
    world = World()
    with pytest.raises(SettingError, match="use at most"):
        world.enter(1, workers, limits)
    assert not world.tickets()


def test_admission_takes_three_requests() -> None:
    asked: list[str] = []

    class Counted(MemoryStore):
        def put(self, key: str, data: bytes) -> str:
            asked.append("put")
            return super().put(key, data)

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            asked.append("list")
            return super().list(prefix)

        def delete(self, keys: Any) -> None:
            asked.append("delete")
            super().delete(keys)

    admission = Admission(Counted())
    ticket = admission.enter(name(1), 0, 5, SHARED, deadline_s=1, now=START, queued_since=None)
    admission.leave(held(ticket))
    assert asked == ["put", "list", "delete"]  # as `count_coordination` has it


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_first_to_come_is_the_first_to_run_and_a_large_run_is_not_passed() -> None:
    world = World()
    first = held(world.enter(1, 14))
    assert world.enter(2, 19) is None
    assert world.enter(3, 1) is None  # would fit, but not beside run 2
    assert world.again(3, 1) is None
    world.admission.leave(first)
    assert world.again(3, 1) is None
    second = held(world.again(2, 19))
    assert world.again(3, 1) is None
    world.admission.leave(second)
    held(world.again(3, 1))


def test_who_waits_behind_a_run_starts_with_it_if_both_fit() -> None:
    world = World()
    first = held(world.enter(1, 19))
    assert [world.enter(run, 4) for run in (2, 3, 4, 5, 6)] == [None] * 5
    world.admission.leave(first)
    assert [world.again(run, 4) is not None for run in (5, 6, 2, 3, 4)] == [True, False, True, True, True]


def test_a_place_is_kept_while_it_is_renewed() -> None:
    world = World()
    first = held(world.enter(1, 19, deadline_s=1000))
    assert world.enter(2, 19) is None
    for _ in range(20):
        world.now += PLACE_S / 2
        assert world.again(2, 19) is None
    assert world.enter(3, 1) is None
    world.admission.leave(first)
    assert world.again(3, 1) is None
    held(world.again(2, 19))


# --- runs that are gone -----------------------------------------------------------------------------------------------


def test_a_place_is_lost_if_its_client_is_gone() -> None:
    world = World()
    held(world.enter(1, 9, deadline_s=1000))
    assert world.enter(2, 19) is None
    world.now += PLACE_S - 2
    assert world.enter(3, 9) is None
    world.now += 5
    assert world.again(3, 9) is None  # the time is that of the newest ticket, which is renewed now
    held(world.again(3, 9))


def test_functions_of_a_coordinator_that_is_gone_are_free_after_its_deadline() -> None:
    world = World()
    held(world.enter(1, 19, deadline_s=100))
    world.now = 125
    assert world.enter(2, 1) is None
    world.now = 132
    assert world.again(2, 1) is None
    held(world.again(2, 1))


def test_tickets_of_the_dead_are_deleted_by_the_next_run() -> None:
    world = World()
    dead = held(world.enter(1, 4, deadline_s=100))
    assert world.enter(2, 19) is None  # which waits, and does not come back
    world.now = 132
    world.enter(3, 1)
    living = held(world.enter(4, 1))
    assert dead not in world.tickets()
    assert {ticket.run for ticket in world.tickets()} == {name(3), name(4)}
    assert living in world.tickets()


def test_a_run_is_forgotten_with_all_its_tickets_and_no_others() -> None:
    world = World()
    held(world.enter(1, 10))
    assert world.enter(2, 19) is None
    living = held(world.enter(3, 1, since=START))
    for run in (1, 2):
        world.admission.forget(name(run))
    assert world.tickets() == [living]


def test_cleaning_a_run_frees_its_functions() -> None:
    world = World()
    held(world.enter(1, 19))
    assert world.enter(2, 1) is None
    (gone,) = clean([world.store], 900.0, named=[name(1)])
    assert gone.run == name(1)
    held(world.again(2, 1))


def test_other_objects_are_no_tickets() -> None:
    world = World()
    for key in ("held-1-0-5-130-x-0", "clock", f"waits-1-0-5-130-{name(1)}", f"lost-1-0-5-130-{name(1)}-0"):
        assert parse_ticket(f"{ADMISSION_FOLDER}{key}") is None
        world.store.put(f"{ADMISSION_FOLDER}{key}", b"")
    ticket = held(world.enter(1, 19))
    assert parse_ticket(ticket.key) == ticket


# --- races ------------------------------------------------------------------------------------------------------------


class Interrupted(MemoryStore):
    """A store in which other runs may ask for admission between any two requests of a run."""

    def __init__(self, between: Callable[[], None]) -> None:
        super().__init__()
        self._between = between

    def put(self, key: str, data: bytes) -> str:
        self._between()
        return super().put(key, data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._between()
        found = list(super().list(prefix))
        self._between()
        return iter(found)

    def delete(self, keys: Any) -> None:
        self._between()
        super().delete(keys)


@settings(deadline=None)
@given(st.data())
def test_admitted_runs_fit_whatever_happens_between_their_requests(data: st.DataObject) -> None:
    draw: Any = data.draw
    workers = draw(st.lists(st.integers(1, 12), min_size=2, max_size=5))
    pools = draw(st.lists(st.booleans(), min_size=len(workers), max_size=len(workers)))
    limits = [Concurrency(512, 14, 12) if reserved else Concurrency(1769, 14, None) for reserved in pools]
    waiting = list(range(len(workers)))
    admitted: dict[int, Ticket] = {}
    since: dict[int, float] = {}

    def one() -> None:
        run = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
        ticket = admission.enter(
            name(run), 0, workers[run], limits[run], deadline_s=1e3, now=START + run, queued_since=since.get(run)
        )
        if ticket is None:
            since[run] = START + run
            return
        admitted[run] = ticket
        account = sum(1 if pools[each] else 1 + workers[each] for each in admitted)
        assert account <= 14
        assert sum(workers[each] for each in admitted if pools[each]) <= 12

    def between() -> None:
        if waiting and draw(st.booleans()):
            one()

    store = Interrupted(between)
    admission = Admission(store)
    while waiting:
        one()
    # Nothing is lost or left: all others run one after the other in the end.
    for _ in range(3 * len(workers)):
        while admitted:
            admission.leave(admitted.popitem()[1])
        waiting = [int(ticket.run, 16) for ticket in map(parse_ticket, _keys(store)) if ticket is not None]
        while waiting:
            one()
    assert not _keys(store)


def _keys(store: MemoryStore) -> list[str]:
    return [info.key for info in MemoryStore.list(store, ADMISSION_FOLDER)]


# --- the coordinator --------------------------------------------------------------------------------------------------

FUNCTION = WorkerFunction(512, "arn:aws:lambda:us-east-1:000000000000:function:s-worker-512")
STACK = StackSpec(
    "s",
    None,
    "us-east-1",
    (),
    ("runs",),
    "networks",
    functions=FunctionsSpec(
        "arn:aws:lambda:us-east-1:0:function:s-coordinator", (FUNCTION,), "http://127.0.0.1:1", 900
    ),
)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> Resources:
    """A coordinator's resources on a stack where six functions may run at a time."""
    manifest = SimpleNamespace(features=4, layers=3)
    monkeypatch.setattr(coordination, "load_manifest", lambda *_: manifest)
    return Resources(
        cast("Any", SimpleNamespace(functions=None)),
        STACK,
        "57ac",
        [MemoryStore()],
        UsageMeter(),
        lambda _: None,
        "c0de",
        lambda _: Concurrency(512, 6, None),
        {FUNCTION.arn},
    )


def carry_out(used: Resources, event: RunEvent) -> RunStatus:
    status = Coordination(used, event, ends=1e12, before=Usage(), init_s=0.0).carry_out()
    assert status is not None
    return status


def event(run: int, workers: int = 4) -> RunEvent:
    settings = RunSettings(workers=workers)
    return RunEvent(RunSpec(name(run), 0, "b" * 32, 10, 4, 0.0, settings), "object", 512)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_that_does_not_fit_beside_another_starts_no_rank_until_that_has_ended(
    used: Resources, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    ran: list[str] = []
    second = event(2)

    def run(self: Coordination, *_: object) -> Ended:
        nonlocal second
        ran.append(self._event.spec.run)
        if self._event.spec.run == name(1):
            for _once in range(2):
                status = carry_out(used, second)
                assert (status.state, status.is_over, status.ended) == ("queued", False, None)
                second = replace(second, queued_since=second.queued_since or status.received)
        if fails:
            raise StackError("no rank could be started")
        return Ended(1.0, [], None)

    monkeypatch.setattr(Coordination, "_run", run)
    monkeypatch.setattr(Coordination, "_small_results", lambda *_: None)
    assert carry_out(used, event(1)).state == ("failed" if fails else "done")
    assert ran == [name(1)]
    assert carry_out(used, second).state == ("failed" if fails else "done")
    assert ran == [name(1), name(2)]
    assert list(used.store.list(ADMISSION_FOLDER)) == []


def test_where_limits_cannot_be_read_all_runs_are_admitted(used: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Coordination, "_run", lambda *_: Ended(1.0, [], None))
    monkeypatch.setattr(Coordination, "_small_results", lambda *_: None)
    assert carry_out(replace(used, concurrency=lambda _: None), event(1, 500)).state == "done"
    assert list(used.store.list(ADMISSION_FOLDER)) == []


def test_a_run_that_never_fits_fails_for_good(used: Resources) -> None:
    status = carry_out(used, event(1, 6))
    assert status.error is not None
    assert "6 workers and their coordinator need more functions" in str(status.error)
    assert not status.error.retryable
