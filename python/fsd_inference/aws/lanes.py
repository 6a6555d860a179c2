"""Leases of lanes: SQS consumers compete, so a set of queues belongs to one (run, attempt) at a time.

A lease is one small object a lane, written if absent and changed if unchanged:

- *free* (or no object): anyone may hold it.
- *held*: until its time is over. Then the holder's ranks have ended by their deadline; whoever finds it takes it over,
  purges its queues and leaves it draining.
- *draining*: its queues were purged, which takes a while; then it may be held again.

An object says how long its state lasts; when that began is the time the store gave the object, and "now" is the time
the store gives an object written now. The client's clock only measures how long ago that was.
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
_TICK_S = 1.0  # stores give times in whole seconds
_MARGIN_S = 30.0  # past the deadline a run may still be stopping
_PURGE_S = 120.0  # a purge with all its repeats has ended by then
_POLL_S = (0.2, 3.0)
_PURGE_THREADS = 16
_PURGE_RETRY = RetrySettings()
_FREE = "if the client of such a run is gone, free its lane with: fsd runs clean RUN --stack stack.json"
_LONGEST_S = 7 * 86_400.0  # nothing lasts longer: times beyond are not ours


@dataclass(frozen=True, slots=True)
class Lease:
    """A lane that is held: `etag` is the version of the lease's object that says so."""

    lane: int
    run: str
    attempt: int
    etag: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """What a lane's lease says: its state, who has or had it last, and until when (UTC)."""

    lane: int
    state: State
    run: str
    attempt: int
    until: datetime
    is_over: bool


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a lease's object says, and the version and time that the store gave it."""

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
    """The leases of a stack's lanes, kept in a store.

    Parameters
    ----------
    store : Store
        The stack's first bucket of runs.
    lanes : int
        How many lanes there are.
    purge : callable
        Empties all queues of a lane; returns when all purges were asked for.
    settle_s : float
        How long a purge may go on after that; 0 frees lanes at once.
    clock, sleep : callable, optional
        Seconds of a clock that only runs forward, and a wait for some; tests hand in their own.
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
        """Return what the leases of all lanes that were ever held say, in order of the lanes."""
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
        """Hold a lane until `deadline_s` from now, and a margin for stopping.

        Parameters
        ----------
        run : str
        attempt : int
        deadline_s : float
            The run ends within this many seconds.
        wait_s : float
            Longest wait for a lane, in seconds.
        lanes : sequence of int, optional
            One of these, instead of any.
        on_wait : callable, optional
            Called once with what is waited for, if no lane is free.

        Raises
        ------
        LaneError
            None became free in time; the message says who holds them until when.
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
        """Hold a lane for the length of a `with` block.

        Parameters
        ----------
        run, attempt, deadline_s, wait_s
            See `acquire`.
        open_poll_s : float
            See `release`; after a block that ends well no poll is open.
        """
        lease = self.acquire(run, attempt, deadline_s, wait_s)
        try:
            yield lease
            open_poll_s = 0.0
        finally:
            with suppress(FsdError):  # the lease expires by itself, and this must not hide how the run ended
                self.release(lease, open_poll_s)

    def renew(self, lease: Lease, deadline_s: float) -> Lease:
        """Hold the lane until `deadline_s` from now instead; raise `LaneError` if it was taken over."""
        renewed = self._hold(lease.lane, lease.run, lease.attempt, deadline_s + _MARGIN_S, lease.etag)
        if renewed is None:
            raise LaneError(
                f"lane {lease.lane} no longer belongs to run {lease.run}, attempt {lease.attempt}: "
                "its time was over and another run took it"
            )
        return renewed

    def release(self, lease: Lease, open_poll_s: float = 0.0) -> None:
        """Purge the lane's queues and give it back.

        Parameters
        ----------
        lease : Lease
        open_poll_s : float, optional
            How long a poll may still be open that nobody waits for: the lane is not held again before it has ended.

        Raises
        ------
        LaneError
            The lane was taken over; nothing is purged then.
        """
        # Whoever purges must still hold the lane, and go on holding it meanwhile.
        _log.of(run=lease.run).info("lane %d is purged and given back", lease.lane)
        holding = self.renew(lease, _PURGE_S)
        self._purge(holding.lane)
        settle_s = max(self._settle_s, open_poll_s)
        state: State = "draining" if settle_s > 0 else "free"
        if self._write(holding.lane, state, lease.run, lease.attempt, settle_s, holding.etag) is None:
            raise LaneError(f"lane {lease.lane} was taken from run {lease.run} while it was being purged")

    def free(self, run: str, open_poll_s: float) -> list[int]:
        """Purge and give back the lanes that a run holds whose client is gone; return which.

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
        """Look at all wanted lanes once; take a free one, and make those whose holders are gone ready to be taken."""
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
            "nonce": uuid4().hex,  # no two versions have the same content, and so none the same tag
        }
        data = json.dumps(value).encode()
        key = _key(lane)
        return self._store.put_if_absent(key, data) if etag is None else self._store.put_if_match(key, data, etag)


class _View:
    """What one who waits for a lane knows of all leases, and of the store's time."""

    def __init__(self, store: Store, lanes: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._entries: dict[int, _Entry] = {}
        self._store_time: tuple[datetime, float] | None = None

    def read(self) -> dict[int, _Entry]:
        """Return what the leases say; those that did not change are not read again."""
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
            # A version written since the listing has a time that is not known yet; its lane is busy changing hands.
            if found is not None and found.etag == info.etag:
                known[lane] = _parse(found.data, info.key, info.etag, info.modified)
            else:
                known[lane] = _Entry("held", "another", 0, _PURGE_S, info.etag, info.modified)
        self._entries = known
        return known

    def is_over(self, entry: _Entry) -> bool:
        return self._now() >= entry.until

    def _now(self) -> datetime:
        """Return a time that the store's clock has passed."""
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
        return "; ".join(shown[:4]) + more if shown else "others were quicker"


def store_time(store: Store) -> datetime:
    """Return the time that a store gives an object written now."""
    store.put(_CLOCK_KEY, uuid4().hex.encode())
    info = store.stat(_CLOCK_KEY)
    if info is None:
        raise StoreError(f"the object {_CLOCK_KEY} is gone just after it was written")
    return info.modified


def open_lanes(store: Store, clients: Clients, stack: StackSpec, *, meter: UsageMeter) -> LaneTable:
    """Return the leases of a stack's lanes, kept in `store` (its first bucket of runs); `meter` counts purges."""

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
        message = f"object {key} is not a lease that this version reads: delete it if no run uses the lane"
        raise LaneError(message, retryable=False)
    return entry
