"""Short leases that their holders renew, under virtual time: what a dead, a live and a cut-off holder's lane does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws import keeping
from fsd_inference.aws.keeping import Keeper
from fsd_inference.aws.lanes import LaneTable
from fsd_inference.errors import LaneError, StoreError
from fsd_inference.limits import LEASE_S, RENEW_S
from fsd_inference.store.memory import MemoryStore
from tests.support.processes import wait_until

START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class Cut(MemoryStore):
    """A store that can be out of reach for the one who renews, and that gives whole seconds as S3 does."""

    is_cut = False

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        if self.is_cut:
            raise StoreError("out of reach")
        return super().put_if_match(key, data, etag)


@dataclass
class World:
    """The true time, the store, and the lanes that were purged."""

    now: float = 0.75
    purged: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Cut(clock=lambda: datetime.fromtimestamp(START + int(self.now), UTC))

    def table(self) -> LaneTable:
        return LaneTable(
            self.store,
            1,
            purge=self.purged.append,
            settle_s=0.0,
            lifetime_s=1200.0,
            clock=lambda: self.now,
            sleep=self.sleep,
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def keeper(self) -> Keeper:
        """A holder's keeper, whose steps the test takes itself."""
        table = self.table()
        lease = table._acquire("owner", 0, LEASE_S, 0.0, None, lambda _: None)
        return Keeper(lease, lambda held: table._renew(held, LEASE_S), lambda: self.now)

    def next_acquired(self) -> float:
        """When another run gets the lane."""
        self.table().acquire("next", 0, 100.0, 1000.0)
        return self.now


@pytest.fixture
def slow_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave renewing to the tests."""
    monkeypatch.setattr(keeping, "RENEW_S", 1e6)


@pytest.mark.parametrize("age_s", [0.0, 4.9, RENEW_S])
def test_the_lane_of_a_dead_client_is_taken_over_within_a_lease(age_s: float) -> None:
    world = World()
    keeper = world.keeper()
    world.now += RENEW_S
    assert keeper.step() == RENEW_S
    renewed = world.now
    world.now += age_s  # and then the client dies
    assert renewed + LEASE_S <= world.next_acquired() <= renewed + LEASE_S + 2 + 3  # the store's clock, and a poll
    assert world.purged == [0]


def test_a_lane_is_kept_for_as_long_as_its_client_lives() -> None:
    world = World()
    keeper = world.keeper()
    before = keeper.lease.etag
    for _ in range(100):
        world.now += RENEW_S
        assert keeper.step() == RENEW_S
        with pytest.raises(LaneError, match="lane 0 is held by run owner"):
            world.table().acquire("next", 0, 100.0, 0.0)
    assert keeper.lost is None
    assert keeper.lease.etag != before
    world.table().release(keeper.lease)
    released = world.now
    assert world.next_acquired() < released + 1


def test_a_client_whose_lane_was_taken_over_is_told() -> None:
    world = World()
    keeper = world.keeper()
    world.now += 1000
    world.next_acquired()
    assert keeper.step() is None
    assert "lane 0 no longer belongs to run owner" in str(keeper.lost)


@given(st.lists(st.booleans(), min_size=0, max_size=60), st.floats(0, 1), st.floats(0, 3))
def test_a_client_that_cannot_renew_stops_before_its_lane_is_taken_over(
    failing: list[bool], began: float, request_s: float
) -> None:
    """Each renewal is in reach or not; in the end none is. Requests take a while before they fail."""
    world = World(began)
    keeper = world.keeper()
    renew = keeper._renew

    def slow(held: keeping.Lease) -> keeping.Lease:
        world.now += request_s
        return renew(held)

    keeper._renew = slow
    pause: float | None = RENEW_S
    for is_cut in [*failing, *[True] * 60]:
        assert pause is not None
        world.now += pause
        world.store.is_cut = is_cut
        pause = keeper.step()
        if pause is None:
            break
    lost_at = world.now
    assert keeper.lost is not None
    assert keeper.lost.retryable
    assert keeper.lease.until == pytest.approx(lost_at + keeping._STOP_S, abs=request_s + 2)
    world.store.is_cut = False
    assert world.next_acquired() >= lost_at + keeping._STOP_S - request_s


def test_a_renewal_that_fails_once_does_no_harm() -> None:
    world = World()
    keeper = world.keeper()
    world.now += RENEW_S
    world.store.is_cut = True
    assert keeper.step() == keeping._AGAIN_S
    world.store.is_cut = False
    world.now += keeping._AGAIN_S
    assert keeper.step() == RENEW_S
    assert keeper.lost is None


@pytest.mark.usefixtures("slow_threads")
def test_a_kept_lane_is_purged_and_free_after_its_block() -> None:
    world = World()
    with world.table().keep("owner", 0, 0.0, 0.0) as (holding, keeper):
        assert keeper.lease == holding.lease
        assert keeper.lost is None
    assert world.purged == [0]
    assert world.next_acquired() < 2


def test_a_thread_renews_and_the_renewed_lease_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RENEW_S", 0.001)
    world = World()
    with world.table().keep("owner", 0, 0.0, 0.0) as (holding, keeper):
        wait_until(lambda: keeper.lease != holding.lease, "the lease is renewed")
        with pytest.raises(LaneError, match="held by run owner"):
            world.table().acquire("next", 0, 100.0, 0.0)
    assert world.next_acquired() < 2


def test_a_lane_that_cannot_be_released_is_named(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    with world.table().keep("owner", 0, 0.0, 0.0):
        world.store.is_cut = True
    assert "lane 0 was not released, and its lease expires: out of reach" in caplog.text
