"""Leases of lanes on a memory store, with a controlled clock."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fsd_inference.aws.hidden_messages import count_received
from fsd_inference.aws.keeping import Lease
from fsd_inference.aws.lanes import LaneTable
from fsd_inference.errors import LaneError
from fsd_inference.limits import HIDDEN_MESSAGES, LANE_WAIT_S, LONGEST_POLL_S
from fsd_inference.rank_report import RankReport, SentTo
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import Usage
from tests.support.reports import rank_value

LIFETIME_S = 1200.0
START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@dataclass
class World:
    """A store, the true time, and which lanes were purged."""

    now: float = 0.25
    purged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        # As S3 does, the store gives whole seconds.
        self.store = MemoryStore(clock=lambda: datetime.fromtimestamp(START + int(self.now), UTC))

    def table(self, lanes: int = 2, *, settle_s: float = 60.0, clock_starts_at: float = 0.0) -> LaneTable:
        return LaneTable(
            self.store,
            lanes,
            purge=self.purged.append,
            settle_s=settle_s,
            lifetime_s=LIFETIME_S,
            clock=lambda: clock_starts_at + self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def reports(received: int, *, retries: int = 0) -> list[RankReport]:
    """Return the reports of a run whose rank 1 got `received` messages."""
    report = RankReport.from_json(rank_value(0, 3, 1))
    return [replace(report, sent_to=(SentTo(1, received, 99),), usage=Usage(retries=retries))]


def test_each_run_gets_a_lane_of_its_own_until_none_is_left() -> None:
    world = World()
    table = world.table(3)
    assert {table.acquire(f"run{i}", 0, 100, 0).lane for i in range(3)} == {0, 1, 2}
    with pytest.raises(
        LaneError, match=r"no lane is free after 5 s: lane 0 is held by run run\d, attempt 0, until 00:02"
    ) as caught:
        table.acquire("late", 1, 100, 5)
    assert caught.value.retryable
    assert world.now >= 5


def test_who_waits_is_told_once_for_whom_and_what_frees_a_lane() -> None:
    world, told = World(), list[str]()
    table = world.table(1)
    lease = table.acquire("gone", 0, 100, 0, on_wait=told.append)
    assert told == []
    with pytest.raises(LaneError, match="free its lane with: fsd runs clean RUN --stack"):
        table.acquire("late", 0, 100, 20, on_wait=told.append)
    (text,) = told
    assert text.startswith("no lane is free: lane 0 is held by run gone, attempt 0, until 00:02")
    assert lease.lane == 0


def test_lanes_of_a_run_whose_client_is_gone_are_purged_and_freed() -> None:
    world = World()
    table = world.table(3, settle_s=0)
    gone = [table.acquire("gone", 0, 100, 0), table.acquire("gone", 1, 100, 0)]
    kept = table.acquire("alive", 0, 100, 0)
    assert table.free("gone", 0.0) == sorted(lease.lane for lease in gone)
    assert world.purged == sorted(lease.lane for lease in gone)
    assert {state.run for state in table.look() if state.state == "held"} == {"alive"}
    assert table.free("gone", 0.0) == table.free("nobody", 0.0) == []
    table.renew(kept, 100)
    with pytest.raises(LaneError, match="no longer belongs to run gone"):
        table.release(gone[0])
    assert table.acquire("next", 0, 100, 0).lane in {lease.lane for lease in gone}


def test_a_freed_lane_rests_until_no_poll_is_open() -> None:
    world = World()
    table = world.table(1, settle_s=0)
    table.acquire("gone", 0, 100, 0)
    table.free("gone", 2.0)
    with pytest.raises(LaneError, match="lane 0 is draining by run gone"):
        table.acquire("next", 0, 100, 0)
    assert table.acquire("next", 0, 100, 10).lane == 0


def test_one_lane_can_be_asked_for() -> None:
    world = World()
    table = world.table(3)
    assert table.acquire("a", 0, 100, 0, [1]).lane == 1
    with pytest.raises(LaneError, match="lane 1 is held by run a"):
        table.acquire("b", 0, 100, 0, [1])
    assert table.acquire("b", 0, 100, 0, [0, 1]).lane == 0


def test_what_leases_say() -> None:
    world = World()
    table = world.table(3)
    first, second = table.acquire("a", 2, 100, 0, [0]), table.acquire("b", 0, 10, 0, [2])
    assert [(state.lane, state.run, state.attempt, state.is_over) for state in table.look()] == [
        (0, "a", 2, False),
        (2, "b", 0, False),
    ]
    world.now += 100
    table.release(first)
    assert [(state.state, state.is_over) for state in table.look()] == [("draining", False), ("held", True)]
    assert second.lane == 2
    world.now += 70
    assert [(state.state, state.is_over) for state in table.look()] == [("draining", True), ("held", True)]


def test_a_released_lane_is_purged_and_settles_before_it_is_held_again() -> None:
    world = World()
    table = world.table(1)
    lease = table.acquire("a", 0, 100, 0)
    table.release(lease)
    assert world.purged == [0]
    with pytest.raises(LaneError, match="lane 0 is draining by run a"):
        table.acquire("b", 0, 100, 50)
    released = world.now
    assert table.acquire("b", 0, 100, 60).lane == 0
    assert world.now >= released
    assert world.now >= 60
    assert world.purged == [0]


def test_a_released_lane_is_free_at_once_where_purges_are_immediate() -> None:
    world = World()
    table = world.table(1, settle_s=0)
    table.release(table.acquire("a", 0, 100, 0))
    assert table.acquire("b", 0, 100, 0).lane == 0
    assert world.now < 1


@pytest.mark.parametrize(("settle_s", "waits_s"), [(0.0, 2.0), (60.0, 60.0)])
def test_a_lane_with_a_poll_that_nobody_waits_for_is_not_held_before_it_has_ended(
    settle_s: float, waits_s: float
) -> None:
    world = World()
    table = world.table(1, settle_s=settle_s)
    table.release(table.acquire("run", 0, 100, 0), 2.0)
    released = world.now
    assert table.acquire("run", 1, 100, 200).lane == 0
    assert released + waits_s <= world.now <= released + waits_s + 6
    assert world.purged == [0]


def test_ten_runs_that_end_well_take_turns_on_one_lane_without_a_rest_or_a_purge() -> None:
    world = World()
    for run in range(10):
        began = world.now
        with world.table(1).hold(f"run{run}", 0, 100, 0, 2.0) as holding:
            world.now += 5
            holding.ended_well(reports(1000))
        assert world.now == began + 5
        (state,) = world.table(1).look()
        assert (state.state, state.run) == ("free", f"run{run}")
    assert world.purged == []


def test_a_run_that_failed_leaves_a_purged_lane() -> None:
    world = World()
    with pytest.raises(KeyError), world.table(1).hold("run", 0, 100, 0, 2.0):
        raise KeyError
    assert world.purged == [0]
    with world.table(1).hold("next", 0, 100, 120, 2.0):  # without `ended_well`
        pass
    assert world.purged == [0, 0]


def test_a_wait_for_a_lane_outlasts_a_purge() -> None:
    world = World()
    table = world.table(1)
    table.release(table.acquire("failed", 0, 100, 0), LONGEST_POLL_S)
    assert table.acquire("failed", 1, 100, LANE_WAIT_S).lane == 0


def test_a_lane_is_purged_before_too_many_messages_hide_in_it() -> None:
    world = World()
    table, half = world.table(1), HIDDEN_MESSAGES // 2
    for run in ("a", "b"):
        table.release(table.acquire(run, 0, 100, 0), received=half)
    assert world.purged == []
    table.release(table.acquire("c", 0, 100, 0), received=1)
    assert world.purged == [0]
    for run in ("d", "e"):  # the purge has emptied it
        table.release(table.acquire(run, 0, 100, 100), received=half)
    assert world.purged == [0]


def test_messages_that_have_expired_do_not_count() -> None:
    world = World()
    table = world.table(1)
    for run in range(5):
        lease = table.acquire(f"run{run}", 0, 100, 0)
        world.now += 100
        table.release(table.renew(lease, 100), received=HIDDEN_MESSAGES * 3 // 5)
        world.now += LIFETIME_S
    assert world.purged == []


def test_a_lease_of_an_earlier_release_says_nothing_of_hidden_messages() -> None:
    world = World()
    lease = {"version": 1, "state": "free", "run": "old", "attempt": 0, "lasts_s": 0, "nonce": "x"}
    world.store.put("lanes/0000.json", json.dumps(lease).encode())
    assert world.table(1).acquire("new", 0, 100, 0).hidden.total == 0


def test_a_lane_rests_for_an_abandoned_poll_of_a_run_that_ended_well() -> None:
    world = World()
    with world.table(1).hold("run", 0, 100, 0, 2.0) as holding:
        holding.ended_well(reports(10, retries=1))
    with pytest.raises(LaneError, match="lane 0 is draining by run run"):
        world.table(1).acquire("next", 0, 100, 0)
    world.now += 4
    assert world.table(1).acquire("next", 0, 100, 0).lane == 0
    assert world.purged == []


def test_the_fullest_queue_is_counted_from_what_all_ranks_sent() -> None:
    assert count_received([]) == 0
    one = replace(reports(7)[0], sent_to=(SentTo(1, 3, 99), SentTo(2, 4, 99)))
    two = replace(reports(7)[0], sent_to=(SentTo(2, 2, 99),))
    assert count_received([one, two, one]) == 4 + 2 + 4
    assert count_received(reports(HIDDEN_MESSAGES + 1)) == HIDDEN_MESSAGES  # ranks delete what they receive beyond
    assert count_received([one, replace(two, sent_to=None)]) is None


@pytest.mark.parametrize("settle_s", [0.0, 60.0])
def test_a_lane_whose_holder_is_gone_is_purged_before_it_is_held(settle_s: float) -> None:
    world = World()
    table = world.table(1, settle_s=settle_s)
    table.acquire("gone", 0, 100, 0)
    with pytest.raises(LaneError, match="held by run gone"):
        table.acquire("next", 0, 100, 100)
    lease = table.acquire("next", 0, 100, 200)
    assert lease.lane == 0
    assert world.purged == [0]
    assert world.now >= 130 + settle_s


def test_a_lost_lane_cannot_be_released_or_renewed() -> None:
    world = World()
    table = world.table(1, settle_s=0)
    lost = table.acquire("slow", 0, 10, 0)
    world.now += 1000
    other = world.table(1, settle_s=0).acquire("next", 0, 10, 0)
    world.purged.clear()
    with pytest.raises(LaneError, match="lane 0 no longer belongs to run slow, attempt 0"):
        table.release(lost)
    with pytest.raises(LaneError):
        table.renew(lost, 100)
    assert world.purged == []
    table.release(other)


def test_renewing_moves_the_end() -> None:
    world = World()
    table = world.table(1, settle_s=0)
    lease = table.acquire("a", 0, 10, 0)
    world.now += 35
    lease = table.renew(lease, 100)
    world.now += 100
    with pytest.raises(LaneError):
        table.acquire("b", 0, 10, 0)
    table.release(lease)


def test_a_purge_that_fails_keeps_the_lane_until_its_time_is_over() -> None:
    world = World()

    def fail(lane: int) -> None:
        raise LaneError("no")

    broken = LaneTable(
        world.store, 1, purge=fail, settle_s=0, lifetime_s=LIFETIME_S, clock=lambda: world.now, sleep=world.sleep
    )
    with pytest.raises(LaneError, match="no"):
        broken.release(broken.acquire("a", 0, 10, 0))
    with pytest.raises(LaneError):
        world.table(1, settle_s=0).acquire("b", 0, 10, 20)
    assert world.table(1, settle_s=0).acquire("b", 0, 10, 20).lane == 0
    assert world.purged == [0]


def test_a_strange_object_among_the_leases() -> None:
    world = World()
    world.store.put("lanes/notes.txt", b"ignored")
    world.store.put("lanes/0007.json", b"of a larger stack")
    assert world.table(1).acquire("a", 0, 10, 0).lane == 0
    for data in (b"", b"[]", b"{}", b'{"version": 2}', b'{"version": 1, "state": "lost"}', b"\xff"):
        world.store.put("lanes/0001.json", data)
        with pytest.raises(LaneError, match=r"object lanes/0001.json is not a lease"):
            world.table(2).acquire("b", 0, 10, 0)


def test_threads_never_share_a_lane() -> None:
    world = World()
    holders: dict[int, int] = {}
    taken = []
    guard = threading.Lock()
    gate = threading.Barrier(8)

    def run(index: int) -> None:
        table = LaneTable(
            world.store, 3, purge=lambda lane: None, settle_s=0, lifetime_s=LIFETIME_S, sleep=lambda s: None
        )
        gate.wait()
        for attempt in range(10):
            lease = table.acquire(f"run{index}", attempt, 100, 30)
            with guard:
                holders[lease.lane] = holders.get(lease.lane, 0) + 1
                taken.append(holders[lease.lane])
            with guard:
                holders[lease.lane] -= 1
            table.release(lease)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [1] * 80


@dataclass
class Held:
    table: LaneTable
    lease: Lease
    ends: float


class Leases(RuleBasedStateMachine):
    """Clients with clocks of their own take, renew, release and forget lanes while time goes on."""

    LANES = 2
    DEADLINE = 20.0
    LIFETIME_S = 60.0

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.settle_s = 5.0
        self.held: list[Held] = []
        self.lost: list[Held] = []
        self.runs = 0
        self.purges: dict[int, float] = {}
        self.received: dict[int, list[tuple[float, int]]] = {}  # by lane: when messages were received, and how many

    def table(self, clock_starts_at: float) -> LaneTable:
        return LaneTable(
            self.world.store,
            self.LANES,
            purge=self.purge,
            settle_s=self.settle_s,
            lifetime_s=self.LIFETIME_S,
            clock=lambda: clock_starts_at + self.world.now,
            sleep=self.world.sleep,
        )

    def purge(self, lane: int) -> None:
        # A lane is purged by its holder, or when its holder's run is over; never under a run.
        assert all(held.ends <= self.world.now for held in self.held if held.lease.lane == lane)
        self.purges[lane] = self.world.now
        self.received[lane] = []

    @rule(clock_starts_at=st.floats(-1e6, 1e6), wait_s=st.sampled_from([0.0, 1.0, 30.0]))
    def acquire(self, clock_starts_at: float, wait_s: float) -> None:
        table = self.table(clock_starts_at)
        self.runs += 1
        try:
            lease = table.acquire(f"run{self.runs}", 0, self.DEADLINE, wait_s)
        except LaneError:
            # Refused only where every lane was held or draining a moment ago.
            assert len(self.held) + len(self.lost) + len(self.purges) >= self.LANES
            return
        hidden = [n for at, n in self.received.get(lease.lane, []) if self.world.now < at + self.LIFETIME_S]
        assert sum(hidden) <= HIDDEN_MESSAGES
        # A lane that was purged has settled.
        assert self.world.now - self.purges.pop(lease.lane, -1e9) >= self.settle_s
        self.held.append(Held(table, lease, self.world.now + self.DEADLINE))

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        was_running = held.ends > self.world.now
        try:
            held.lease = held.table.renew(held.lease, self.DEADLINE)
        except LaneError:
            assert not was_running
            self.held.remove(held)
            self.lost.append(held)
        else:
            held.ends = self.world.now + self.DEADLINE

    @precondition(lambda self: self.held)
    @rule(data=st.data(), received=st.sampled_from([None, 10, 20_000, HIDDEN_MESSAGES]))
    def release(self, data: st.DataObject, received: int | None) -> None:
        held = data.draw(st.sampled_from(self.held))
        was_running = held.ends > self.world.now
        self.held.remove(held)
        before, inside = dict(self.purges), list(self.received.get(held.lease.lane, []))
        if received is not None:
            self.received[held.lease.lane] = [*inside, (self.world.now, received)]
        try:
            held.table.release(held.lease, received=received)
            assert received is not None or self.purges != before
        except LaneError:
            assert not was_running
            self.received[held.lease.lane] = inside  # its messages were purged when the lane was taken over
            self.lost.append(held)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def lost_leases_stay_lost(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.lost))
        before = dict(self.purges)
        for use in (lambda: held.table.release(held.lease), lambda: held.table.renew(held.lease, 10)):
            with pytest.raises(LaneError):
                use()
        assert self.purges == before

    @invariant()
    def one_running_holder_a_lane(self) -> None:
        lanes = [held.lease.lane for held in self.held if held.ends > self.world.now]
        assert len(lanes) == len(set(lanes))


TestLeases = Leases.TestCase
TestLeases.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
