"""Leases of lanes, which give each attempt exclusive use of a set of SQS queues: consumers of a queue compete.

Each lane's lease is one small object in S3, changed only by conditional writes (put if absent, put if match):

- *free* (or no object): any attempt may acquire it.
- *held*: an attempt holds it until it expires. By then the holder's ranks have passed their deadline; the next client
  that finds it takes it over, purges its queues and leaves it draining.
- *draining*: its queues were purged, which takes a while; after that it may be acquired again.

The object contains the duration of its state. The state began at the object's modification time, and the current time
is the modification time of an object written now, so that only the store's clock counts. The client's clock only
measures the time since that write.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import uuid4

from fsd_inference.aws.clients import Clients, request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import FsdError, LaneError, StoreError
from fsd_inference.logs import Logger
from fsd_inference.stack_description import StackSpec
from fsd_inference.store import Store
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

_log = Logger(__name__)

State = Literal["free", "held", "draining"]

_VERSION = 1
_FOLDER = "lanes/"
_CLOCK_KEY = "lane-clock"
_TICK_S = 1.0  # resolution of the store's times, in seconds
_MARGIN_S = 30.0  # seconds that a run may take to stop after its deadline
_PURGE_S = 120.0  # longest time of a purge request with all its retries, in seconds
_POLL_S = (0.2, 3.0)
_PURGE_THREADS = 16
_PURGE_RETRY = RetrySettings()
_FREE = "if the client of such a run is gone, free its lane with: fsd runs clean RUN --stack stack.json"
_LONGEST_S = 7 * 86_400.0  # upper limit of a valid lease's duration


@dataclass(frozen=True, slots=True)
class Lease:
    """A lane held by an attempt; `etag` is the version of the lease object, which later changes must match."""

    lane: int
    run: str
    attempt: int
    etag: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """The state of a lane's lease, its current or last holder, and the time at which the state expires (UTC)."""

    lane: int
    state: State
    run: str
    attempt: int
    until: datetime
    is_over: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """The content of a lease object, with its version tag and modification time."""

    state: State
    run: str
    attempt: int
    lasts_s: float
    etag: str
    since: datetime

    @property
    def until(self) -> datetime:
        return self.since + timedelta(seconds=self.lasts_s + _TICK_S)


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
        Seconds that a purge may take after it was started; with 0, lanes skip the draining state.
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
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._lanes = lanes
        self._purge = purge
        self._settle_s = settle_s
        self._clock = clock
        self._sleep = sleep

    def look(self) -> list[LaneState]:
        """Return the states of all lanes that were ever held, ordered by lane number."""
        view = _View(self._store, self._lanes, self._clock)
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
        log = _log.of(run=run)
        wanted = list(range(self._lanes) if lanes is None else lanes)
        give_up = self._clock() + wait_s
        pause, has_waited = _POLL_S[0], False
        view = _View(self._store, self._lanes, self._clock)
        while True:
            lease = self._try(view, wanted, run, attempt, deadline_s)
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
    def hold(self, run: str, attempt: int, deadline_s: float, wait_s: float, open_poll_s: float) -> Iterator[Lease]:
        """Hold a lane for the duration of a `with` block.

        Parameters
        ----------
        run, attempt, deadline_s, wait_s
            See `acquire`.
        open_poll_s : float
            See `release`; applies only if the block raises, since all polls have ended otherwise.
        """
        lease = self.acquire(run, attempt, deadline_s, wait_s)
        try:
            yield lease
            open_poll_s = 0.0
        finally:
            with suppress(FsdError):  # the lease expires anyway, and a failure here must not hide the run's outcome
                self.release(lease, open_poll_s)

    def renew(self, lease: Lease, deadline_s: float) -> Lease:
        """Extend the lease to `deadline_s` seconds from now; raise `LaneError` if another run has taken it over."""
        renewed = self._hold(lease.lane, lease.run, lease.attempt, deadline_s + _MARGIN_S, lease.etag)
        if renewed is None:
            raise LaneError(
                f"lane {lease.lane} no longer belongs to run {lease.run}, attempt {lease.attempt}: "
                "its lease had expired and another run took it over"
            )
        return renewed

    def release(self, lease: Lease, open_poll_s: float = 0.0) -> None:
        """Purge the lane's queues and release its lease.

        Parameters
        ----------
        lease : Lease
        open_poll_s : float, optional
            Seconds for which an abandoned long poll of the run may still be open and consume messages; the lane cannot
            be acquired before they are over.

        Raises
        ------
        LaneError
            Another run has taken the lane over; nothing is purged if that happened before the purge began.
        """
        # Purging a lane of another run would delete its messages, so hold the lane before the purge and during it.
        _log.of(run=lease.run).info("lane %d is purged and released", lease.lane)
        holding = self.renew(lease, _PURGE_S)
        self._purge(holding.lane)
        settle_s = max(self._settle_s, open_poll_s)
        state: State = "draining" if settle_s > 0 else "free"
        if self._write(holding.lane, state, lease.run, lease.attempt, settle_s, holding.etag) is None:
            raise LaneError(f"another run took over lane {lease.lane} while run {lease.run} was purging it")

    def free(self, run: str, open_poll_s: float) -> list[int]:
        """Purge and release the lanes held by a run whose client is gone, and return their numbers.

        Parameters
        ----------
        run : str
        open_poll_s : float
            See `release`.
        """
        freed = []
        for lane, entry in sorted(_View(self._store, self._lanes, self._clock).read().items()):
            if entry.state == "held" and entry.run == run:
                taken = self._hold(lane, run, entry.attempt, _PURGE_S, entry.etag)
                if taken is not None:
                    self.release(taken, open_poll_s)
                    freed.append(lane)
        return freed

    def _try(self, view: _View, wanted: Sequence[int], run: str, attempt: int, deadline_s: float) -> Lease | None:
        """Read all wanted leases once and acquire a free lane, or else take over expired ones and purge them."""
        lasts_s = deadline_s + _MARGIN_S
        entries = view.read()
        lanes = list(wanted)
        random.shuffle(lanes)  # so that runs that start together try different lanes first
        for lane in lanes:
            entry = entries.get(lane)
            if entry is None or entry.state == "free" or (entry.state == "draining" and view.is_over(entry)):
                lease = self._hold(lane, run, attempt, lasts_s, None if entry is None else entry.etag)
                if lease is not None:
                    return lease
        for lane in lanes:
            entry = entries.get(lane)
            if entry is not None and entry.state == "held" and view.is_over(entry):
                taken = self._hold(lane, run, attempt, _PURGE_S, entry.etag)
                if taken is None:
                    continue
                if self._settle_s == 0:
                    self._purge(lane)
                    return self.renew(taken, deadline_s)
                self.release(taken)
        return None

    def _hold(self, lane: int, run: str, attempt: int, lasts_s: float, etag: str | None) -> Lease | None:
        new = self._write(lane, "held", run, attempt, lasts_s, etag)
        return None if new is None else Lease(lane, run, attempt, new)

    def _write(self, lane: int, state: State, run: str, attempt: int, lasts_s: float, etag: str | None) -> str | None:
        value = {
            "version": _VERSION,
            "state": state,
            "run": run,
            "attempt": attempt,
            "lasts_s": lasts_s,
            "nonce": uuid4().hex,  # two versions with equal content would have equal tags
        }
        data = json.dumps(value).encode()
        key = _key(lane)
        return self._store.put_if_absent(key, data) if etag is None else self._store.put_if_match(key, data, etag)


class _View:
    """A client's cached view of all leases and of the store's clock, refreshed while it waits for a lane."""

    def __init__(self, store: Store, lanes: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._store_time: tuple[datetime, float] | None = None

    def read(self) -> dict[int, _Entry]:
        """Return the current entries of all leases by lane, reading only the objects that have changed."""
        known: dict[int, _Entry] = {}
        for info in self._store.list(_FOLDER):
            lane = _lane_of(info.key)
            if lane is None or lane >= self._lanes:
                continue
            before = self._entries.get(lane)
            if before is not None and before.etag == info.etag:
                known[lane] = before
                continue
            found = self._store.get_object(info.key)
            # The modification time of a version newer than the listing is unknown; its lane just changed hands.
            if found is not None and found.etag == info.etag:
                known[lane] = _parse(found.data, info.key, info.etag, info.modified)
            else:
                known[lane] = _Entry("held", "another", 0, _PURGE_S, info.etag, info.modified)
        self._entries = known
        return known

    def is_over(self, entry: _Entry) -> bool:
        return self._now() >= entry.until

    def _now(self) -> datetime:
        """Return a lower bound of the store's current time."""
        if self._store_time is None:
            self._store_time = (store_time(self._store), self._clock())
        written, then = self._store_time
        return written + timedelta(seconds=self._clock() - then)

    def holders(self) -> str:
        shown = [
            f"lane {lane} is {entry.state} by run {entry.run}, attempt {entry.attempt}, "
            f"until {entry.until:%H:%M:%S} UTC"
            for lane, entry in sorted(self._entries.items())
            if entry.state != "free"
        ]
        more = f"; and {len(shown) - 4} more" if len(shown) > 4 else ""
        return "; ".join(shown[:4]) + more if shown else "other runs took the free ones first"


def store_time(store: Store) -> datetime:
    """Return the current time of a store's clock: the modification time of an object written now."""
    store.put(_CLOCK_KEY, uuid4().hex.encode())
    info = store.stat(_CLOCK_KEY)
    if info is None:
        raise StoreError(f"the object {_CLOCK_KEY} disappeared right after it was written; try again")
    return info.modified


def open_lanes(store: Store, clients: Clients, stack: StackSpec, *, meter: UsageMeter) -> LaneTable:
    """Return the leases of a stack's lanes, kept in `store` (its first run bucket); `meter` counts the purges."""

    def purge(lane: int) -> None:
        def one(url: str) -> None:
            what = f"purge queue {url}"
            request("sqs.purge", what, lambda: clients.sqs.purge_queue(QueueUrl=url), meter=meter, retry=_PURGE_RETRY)

        with ThreadPool(_PURGE_THREADS) as threads:
            list(threads.map(one, stack.lanes[lane].queue_urls))

    return LaneTable(store, len(stack.lanes), purge=purge, settle_s=stack.purge_settle_s)


def _key(lane: int) -> str:
    return f"{_FOLDER}{lane:04}.json"


def _lane_of(key: str) -> int | None:
    number = key.removeprefix(_FOLDER).removesuffix(".json")
    return int(number) if number.isdecimal() and key == _key(int(number)) else None


def _parse(data: bytes, key: str, etag: str, since: datetime) -> _Entry:
    try:
        value = json.loads(data)
        entry = _Entry(value["state"], str(value["run"]), int(value["attempt"]), float(value["lasts_s"]), etag, since)
        is_ours = value["version"] == _VERSION and entry.state in get_args(State) and 0 <= entry.lasts_s < _LONGEST_S
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        message = f"object {key} is not a lease that this version can read: delete it if no run uses the lane"
        raise LaneError(message, retryable=False)
    return entry
