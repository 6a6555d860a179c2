"""Leases of lanes, which give each attempt exclusive use of a set of SQS queues: consumers of a queue compete.

Each lane's lease is one small object in S3, changed only by conditional writes (put if absent, put if match):

- *free* (or no object): any attempt may acquire it.
- *held*: an attempt holds it until it expires. By then the holder's ranks have ended; the next client that finds it
  takes it over, purges its queues and leaves it draining. Ranks that are local processes end with their client, which
  holds a short lease and renews it (`LaneTable.keep`). Ranks that are functions go on if their coordinator dies, so it
  holds a lease that lasts until they have passed their deadline (`LaneTable.hold`).
- *draining*: its queues were purged, which takes a while, or a long poll of its last holder may still be open; after
  that it may be acquired again.

The object contains the duration of its state. The state began at the object's modification time, and the current time
is the modification time of an object written now, so that only the store's clock counts. The client's clock only
measures the time since that write.

A lane is free at once after an attempt that ended well: its ranks have received all messages, which hide in the queues
until they expire. Should one appear again, the next attempt's ranks drop it as a message of another attempt. Queues are
purged only after failures, which leave messages that nobody received, and before too many messages hide.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from fsd_inference.aws.clients import Clients, request
from fsd_inference.aws.hidden_messages import HiddenMessages, count_received
from fsd_inference.aws.keeping import Keeper, Lease
from fsd_inference.aws.leases import TICK_S, LeaseView, State, lease_data, lease_key, store_time
from fsd_inference.config import RetrySettings
from fsd_inference.deadlines import cleaning_up, left_s, within
from fsd_inference.errors import FsdError, LaneError
from fsd_inference.limits import HIDDEN_MESSAGES, LEASE_S
from fsd_inference.logs import Logger
from fsd_inference.rank_report import RankReport
from fsd_inference.stack_description import StackSpec
from fsd_inference.store import Store
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

_log = Logger(__name__)

_MARGIN_S = 30.0  # seconds that a run may take to stop after its deadline
_PURGE_S = 20.0  # longest time of a purge with all its retries, in seconds; less than a lease lasts
_POLL_S = (0.2, 3.0)
_PURGE_THREADS = 16
_PURGE_RETRY = RetrySettings()
_NOTHING = HiddenMessages()
_FREE = "if such a run is gone, free its lane with: fsd runs clean RUN --stack stack.json"


@dataclass(frozen=True, slots=True)
class LaneState:
    """The state of a lane's lease, its current or last holder, and the time at which the state expires (UTC)."""

    lane: int
    state: State
    run: str
    attempt: int
    until: datetime
    is_over: bool


@dataclass(slots=True)
class Holding:
    """A lease for the duration of a `with` block, and what the release at its end has to know.

    Attributes
    ----------
    lease : Lease
    open_poll_s : float
        See `LaneTable.release`.
    received : int or None
        See `LaneTable.release`.
    """

    lease: Lease
    open_poll_s: float
    received: int | None = None

    def ended_well(self, reports: Sequence[RankReport]) -> None:
        """Note that the attempt has succeeded, with the reports of all its ranks."""
        self.received = count_received(reports)
        if not any(report.usage.retries for report in reports):
            self.open_poll_s = 0.0  # no receive request was repeated, so none was abandoned


class LaneTable:
    """The leases of all lanes of a stack, as objects in a store.

    Parameters
    ----------
    store : Store
        The stack's first run bucket.
    lanes : int
        Number of lanes.
    purge : callable
        Starts the purge of all queues of a lane, given its number.
    settle_s : float
        Seconds that a purge may take after it was started. With 0, as on emulators, every released lane is purged and
        free at once, so that messages do not fill the emulator's memory.
    lifetime_s : float
        Seconds after which messages expire.
    clock, sleep : callable, optional
        A monotonic clock in seconds, and a sleep of some seconds; tests pass their own.
    """

    def __init__(
        self,
        store: Store,
        lanes: int,
        *,
        purge: Callable[[int], None],
        settle_s: float,
        lifetime_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._purge = purge
        self._settle_s = settle_s
        self._lifetime_s = lifetime_s + TICK_S
        self._clock = clock
        self._sleep = sleep

    def look(self) -> list[LaneState]:
        """Return the states of all lanes that were ever held, ordered by lane number."""
        view = LeaseView(self._store, self._lanes, self._clock)
        return [
            LaneState(
                lane, entry.state, entry.run, entry.attempt, entry.until, entry.state != "free" and view.is_over(entry)
            )
            for lane, entry in sorted(view.read().items())
        ]

    def acquire(
        self,
        run: str,
        attempt: int,
        deadline_s: float,
        wait_s: float,
        lanes: Sequence[int] | None = None,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Lease:
        """Acquire the lease of a free lane, for `deadline_s` seconds plus a margin to stop in.

        Parameters
        ----------
        run : str
        attempt : int
        deadline_s : float
            The attempt ends within this many seconds from now.
        wait_s : float
            Longest wait for a free lane, in seconds.
        lanes : sequence of int, optional
            Lanes to choose from; all if not given.
        on_wait : callable, optional
            Called once with a progress message if no lane is free.

        Raises
        ------
        LaneError
            No lane became free in time; the message names the holders and the expiry of their leases.
        """
        return self._acquire(run, attempt, deadline_s + _MARGIN_S, wait_s, lanes, on_wait)

    def _acquire(
        self,
        run: str,
        attempt: int,
        lasts_s: float,
        wait_s: float,
        lanes: Sequence[int] | None,
        on_wait: Callable[[str], None],
    ) -> Lease:
        log = _log.of(run=run)
        wanted = list(range(self._lanes) if lanes is None else lanes)
        give_up = self._clock() + wait_s
        pause, has_waited = _POLL_S[0], False
        view = LeaseView(self._store, self._lanes, self._clock)
        while True:
            with within(min(lasts_s, left_s())):  # a lease that takes longer to acquire is over
                lease = self._try(view, wanted, run, attempt, lasts_s)
            if lease is not None:
                log.info("lane %d is held by attempt %d", lease.lane, attempt)
                return lease
            left = give_up - self._clock()
            if left <= 0:
                raise LaneError(f"no lane is free after {wait_s:g} s: {view.holders()}; {_FREE}")
            if not has_waited:
                has_waited = True
                log.info("no lane is free: %s", view.holders())
                on_wait(f"no lane is free: {view.holders()}; {_FREE}")
            self._sleep(min(left, random.uniform(pause / 2, pause)))  # noqa: S311 -- spreads load, no secret
            pause = min(2 * pause, _POLL_S[1])

    @contextmanager
    def hold(
        self,
        run: str,
        attempt: int,
        deadline_s: float,
        wait_s: float,
        open_poll_s: float,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Holding]:
        """Hold a lane for the duration of a `with` block; it is purged at the end unless `ended_well` was called.

        Parameters
        ----------
        run, attempt, deadline_s, wait_s, on_wait
            See `acquire`.
        open_poll_s : float
            See `release`.
        """
        holding = Holding(self.acquire(run, attempt, deadline_s, wait_s, on_wait=on_wait), open_poll_s)
        try:
            yield holding
        finally:
            self._give_back(holding, holding.lease)

    @contextmanager
    def keep(
        self,
        run: str,
        attempt: int,
        wait_s: float,
        open_poll_s: float,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> Iterator[tuple[Holding, Keeper]]:
        """Hold a lane as `hold` does, by a short lease that is renewed as long as this process lives.

        The block has to end soon after the keeper says that the lease is lost.
        """
        lease = self._acquire(run, attempt, LEASE_S, wait_s, None, on_wait)
        holding = Holding(lease, open_poll_s)
        keeper = Keeper(lease, lambda held: self._renew(held, LEASE_S), self._clock)
        try:
            with keeper:
                yield holding, keeper
        finally:
            self._give_back(holding, keeper.lease)

    def _give_back(self, holding: Holding, lease: Lease) -> None:
        """Release a lease within the time for cleaning up; a failure must not hide the run's outcome."""
        try:
            with cleaning_up():
                self.release(lease, holding.open_poll_s, holding.received)
        except FsdError as error:
            _log.of(run=lease.run).warning("lane %d was not released, and its lease expires: %s", lease.lane, error)

    def renew(self, lease: Lease, deadline_s: float) -> Lease:
        """Extend the lease to `deadline_s` seconds from now; raise `LaneError` if another run has taken it over."""
        return self._renew(lease, deadline_s + _MARGIN_S)

    def _renew(self, lease: Lease, lasts_s: float) -> Lease:
        renewed = self._hold(lease.lane, lease.run, lease.attempt, lasts_s, lease.etag, hidden=lease.hidden)
        if renewed is None:
            raise _lost(lease)
        return renewed

    def release(self, lease: Lease, open_poll_s: float = 0.0, received: int | None = None) -> None:
        """Release a lane's lease; purge its queues first unless all messages in them hide and are not too many.

        Parameters
        ----------
        lease : Lease
        open_poll_s : float, optional
            Seconds for which an abandoned long poll of the run may still be open and consume messages; the lane cannot
            be acquired before they are over.
        received : int, optional
            After a run whose ranks received all their messages: how many its fullest queue got and did not delete.
            Without it some messages may be visible.

        Raises
        ------
        LaneError
            Another run has taken the lane over; nothing is purged if that happened before the purge began.
        """
        log, hidden, rest_s = _log.of(run=lease.run), self._left_hidden(lease, received), open_poll_s
        if hidden is None:
            # Purging a lane of another run would delete its messages, so hold the lane before the purge and during it.
            log.info("lane %d is purged and released", lease.lane)
            lease = self._purged(self._renew(lease, LEASE_S))
            hidden, rest_s = _NOTHING, max(self._settle_s, open_poll_s)
        else:
            log.info("lane %d is released; at most %d messages hide in each queue", lease.lane, hidden.total)
        state: State = "draining" if rest_s > 0 else "free"
        if self._write(lease.lane, state, lease.run, lease.attempt, rest_s, lease.etag, hidden) is None:
            raise _lost(lease)

    def _left_hidden(self, lease: Lease, received: int | None) -> HiddenMessages | None:
        """Return the messages that hide in a lane's queues after a run; None if the queues must be purged."""
        if received is None or self._settle_s == 0:
            return None
        hidden = lease.hidden.plus(received)
        if hidden.total > HIDDEN_MESSAGES:  # unless some have expired, which only the store's clock tells
            hidden = hidden.at(store_time(self._store).timestamp(), self._lifetime_s)
        return hidden if hidden.total <= HIDDEN_MESSAGES else None

    def free(self, run: str, open_poll_s: float, end: Callable[[int, int], None] = lambda *_: None) -> list[int]:
        """Purge and release the lanes held by a run whose client or coordinator is gone, and return their numbers.

        Parameters
        ----------
        run : str
        open_poll_s : float
            See `release`.
        end : callable, optional
            Called with the number of a lane and the attempt that held it before the lane is purged, to end its ranks.
        """
        freed = []
        for lane, entry in sorted(LeaseView(self._store, self._lanes, self._clock).read().items()):
            if entry.state == "held" and entry.run == run:
                taken = self._hold(lane, run, entry.attempt, LEASE_S, entry.etag)
                if taken is not None:
                    end(lane, entry.attempt)
                    self.release(taken, open_poll_s)
                    freed.append(lane)
        return freed

    def _purged(self, lease: Lease) -> Lease:
        """Purge a lane while its lease lasts, and return the lease."""
        with within(min(_PURGE_S, left_s())):
            self._purge(lease.lane)
        return lease

    def _try(self, view: LeaseView, wanted: Sequence[int], run: str, attempt: int, lasts_s: float) -> Lease | None:
        """Read all wanted leases once and acquire a free lane, or else take over expired ones and purge them."""
        entries = view.read()
        lanes = list(wanted)
        random.shuffle(lanes)  # so that runs that start together try different lanes first
        for lane in lanes:
            entry = entries.get(lane)
            if entry is None or entry.state == "free" or (entry.state == "draining" and view.is_over(entry)):
                if entry is None:
                    lease = self._hold(lane, run, attempt, lasts_s, None)
                else:
                    hidden = entry.hidden.at(entry.since.timestamp(), self._lifetime_s)
                    lease = self._hold(lane, run, attempt, lasts_s, entry.etag, hidden)
                if lease is not None:
                    return lease
        for lane in lanes:
            entry = entries.get(lane)
            if entry is not None and entry.state == "held" and view.is_over(entry):
                taken = self._hold(lane, run, attempt, LEASE_S, entry.etag)
                if taken is None:
                    continue
                if self._settle_s == 0:
                    return self._renew(self._purged(taken), lasts_s)
                self.release(taken)
        return None

    def _hold(
        self,
        lane: int,
        run: str,
        attempt: int,
        lasts_s: float,
        etag: str | None,
        hidden: HiddenMessages = _NOTHING,
    ) -> Lease | None:
        until = self._clock() + lasts_s  # read before the store's clock is, at the time of writing
        new = self._write(lane, "held", run, attempt, lasts_s, etag, hidden)
        return None if new is None else Lease(lane, run, attempt, new, until, hidden)

    def _write(
        self,
        lane: int,
        state: State,
        run: str,
        attempt: int,
        lasts_s: float,
        etag: str | None,
        hidden: HiddenMessages,
    ) -> str | None:
        key, data = lease_key(lane), lease_data(state, run, attempt, lasts_s, hidden)
        return self._store.put_if_absent(key, data) if etag is None else self._store.put_if_match(key, data, etag)


def _lost(lease: Lease) -> LaneError:
    return LaneError(
        f"lane {lease.lane} no longer belongs to run {lease.run}, attempt {lease.attempt}: "
        "its lease had expired and another run took it over"
    )


def open_lanes(store: Store, clients: Clients, stack: StackSpec, *, meter: UsageMeter) -> LaneTable:
    """Return the leases of a stack's lanes, kept in `store` (its first run bucket); `meter` counts the purges."""

    def purge(lane: int) -> None:
        def one(url: str) -> None:
            what = f"purge queue {url}"
            request("sqs.purge", what, lambda: clients.sqs.purge_queue(QueueUrl=url), meter=meter, retry=_PURGE_RETRY)

        with ThreadPool(_PURGE_THREADS) as threads:
            list(threads.map(one, stack.lanes[lane].queue_urls))

    return LaneTable(
        store,
        len(stack.lanes),
        purge=purge,
        settle_s=stack.purge_settle_s,
        lifetime_s=stack.message_lifetime_s,
    )
