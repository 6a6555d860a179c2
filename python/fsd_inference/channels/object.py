"""The channel over a store: each send writes one object, an index followed by the parts for all receivers.

Receivers derive the keys of the objects from the frames that they expect. Of a step's missing sources only the one
expected last is polled; once it has arrived, the others are read in parallel. The first read of an object has a fixed
size, enough for the index and, mostly, the data. All stores must share one meter, which counts the requests.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import TypeVar

from fsd_inference.channels.base import Channel, Expected, Frame, Kind, Limits
from fsd_inference.channels.pace import Pace, PaceSettings
from fsd_inference.channels.parts import HEADER_BYTES, index_size, pack_parts, read_index
from fsd_inference.channels.sending import Joined, check_frames, check_limits, closed_error, done
from fsd_inference.config import RetrySettings
from fsd_inference.errors import ChannelError, LimitError, SettingError, StoreError
from fsd_inference.limits import ABORT_EVERY_S, FIRST_READ_BYTES, HASH_FOLDERS, OBJECT_FRAME_BYTES, READERS, WRITERS
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """The settings of the object channel.

    Attributes
    ----------
    first_bytes : int
        Bytes that the first read of an object requests: enough for the index and the data of most objects.
    object_bytes : int
        Maximum total bytes of the frames in one object; they are held in memory while it is written.
    writers, readers : int
        Maximum concurrent writes and reads.
    abort_every_s : float
        Seconds between a waiting rank's polls for an abort; each poll is a billed request.
    pace : PaceSettings
        Schedule of the polls for missing objects.
    retry : RetrySettings
        Retries of throttled, failed and interrupted requests.
    """

    first_bytes: int = FIRST_READ_BYTES
    object_bytes: int = 1 << 30
    writers: int = WRITERS
    readers: int = READERS
    abort_every_s: float = ABORT_EVERY_S
    pace: PaceSettings = field(default_factory=PaceSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)

    def __post_init__(self) -> None:
        for name, least in (("first_bytes", HEADER_BYTES), ("object_bytes", 1), ("writers", 1), ("readers", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not self.abort_every_s > 0:
            raise SettingError(f"abort_every_s must be a positive number of seconds, not {self.abort_every_s}")


class ObjectChannel(Channel):
    """One rank's channel over a list of stores (buckets).

    Parameters
    ----------
    stores : sequence of Store
        The same stores in the same order for all ranks, with one shared meter; the caller closes them.
    run : str
        The run's id, as it appears in keys.
    attempt, rank, workers : int
        This attempt, this rank and P.
    settings : ObjectSettings, optional
        Sizes, concurrency and polling.

    Raises
    ------
    SettingError
        There is no store, or the stores do not share one meter.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        *,
        run: str,
        attempt: int,
        rank: int,
        workers: int,
        settings: ObjectSettings | None = None,
    ) -> None:
        if not stores:
            raise SettingError("the object channel needs at least one bucket")
        self.meter = stores[0].meter
        if any(store.meter is not self.meter for store in stores):
            raise SettingError("the object channel's buckets must share one usage meter")
        self._settings = settings or ObjectSettings()
        self.limits = Limits(OBJECT_FRAME_BYTES, 1 << 20, self._settings.object_bytes)
        self._folder = f"{run}/{attempt}"
        self._rank = rank
        self._workers = workers
        self._closed = threading.Event()
        self._stores = tuple(store.retrying(self._settings.retry, self._wait) for store in stores)
        self._receiving = threading.Lock()  # held by the one thread that polls; guards the four fields below
        self._read: set[Expected] = set()
        self._paces = {kind: Pace(self._settings.pace) for kind in Kind}
        self._abort_due = time.monotonic() + self._settings.abort_every_s
        self._aborted = False
        self._writers = ThreadPool(self._settings.writers, thread_name_prefix="object-writer")
        self._readers = ThreadPool(self._settings.readers, thread_name_prefix="object-reader")

    # --- sending -----------------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        if self._closed.is_set():
            raise closed_error()
        check_frames(frames, self.limits, self._workers)
        size = sum(len(frame.body) for frame in frames)
        if size > self.limits.batch_bytes:
            raise LimitError(
                f"a step's frames have {size} bytes, but an object holds {self.limits.batch_bytes} at most"
            )
        if not frames:
            return done()
        first = frames[0]
        name = _name(Expected(first.kind, first.layer, first.micro_batch, self._rank))
        joined = Joined(1)

        def ended(future: Future[None]) -> None:
            joined.end(closed_error() if future.cancelled() else future.exception())

        try:
            self._writers.submit(self._write, name, tuple(frames)).add_done_callback(ended)
        except RuntimeError:  # closed meanwhile
            raise closed_error() from None
        for frame in frames:
            self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))
        return joined.future

    def abort(self, frame: Frame) -> None:
        """Store the abort under the key that every rank polls, unless there is one: the first names the root cause."""
        if self._closed.is_set():
            raise closed_error()
        check_limits([frame], self.limits)
        store, key = self._place(_ABORT)
        try:
            store.put_if_absent(key, frame.body)
        except StoreError as error:
            raise ChannelError(f"cannot abort: {error}", retryable=error.retryable) from error
        self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))

    def _write(self, name: str, frames: Sequence[Frame]) -> None:
        store, key = self._place(name)
        try:
            store.put(key, pack_parts([(frame.targets, frame.body) for frame in frames]))
        except StoreError as error:
            raise ChannelError(f"cannot send: {error}", retryable=error.retryable) from error

    # --- receiving ---------------------------------------------------------------------------------------------------

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> list[bytes]:
        """Return bodies of the most urgent step of some kind; only one thread polls at a time, others wait for it."""
        if self._closed.is_set():
            raise closed_error()
        until = time.monotonic() + timeout_s
        if not self._receiving.acquire(timeout=max(0.0, timeout_s)):
            return []
        try:
            missing = self._most_urgent(expected)
            while True:
                bodies = self._poll(missing)
                if bodies or self._closed.is_set() or time.monotonic() >= until:
                    break
                self._closed.wait(max(0.0, min(until, self._next_poll(missing)) - time.monotonic()))
        except (RuntimeError, CancelledError):
            if not self._closed.is_set():
                raise
            raise closed_error() from None  # the pool of readers was shut down: it refused or cancelled the reads
        finally:
            self._receiving.release()
        self.meter.received(sum(map(len, bodies)))
        return bodies

    def close(self) -> None:
        self._closed.set()
        for pool in (self._writers, self._readers):
            pool.shutdown(wait=True, cancel_futures=True)

    def _most_urgent(self, expected: Sequence[Expected]) -> list[_Missing]:
        """Return, for each kind, the messages of its most urgent step that are not read yet."""
        urgent: dict[Kind, _Missing] = {}
        for item in expected:
            if item not in self._read and item.kind is not Kind.ABORT:  # aborts are polled for in any case
                step = (item.layer, item.micro_batch)
                missing = urgent.setdefault(item.kind, _Missing(item.kind, step))
                if missing.step == step:
                    missing.items[item.source] = item
        for missing in urgent.values():
            self._paces[missing.kind].begin(missing.step)
        return list(urgent.values())

    def _next_poll(self, missing: Sequence[_Missing]) -> float:
        """Return when the next poll is due: for an abort, or for a step's source that is expected last."""
        polls = [] if self._aborted else [self._abort_due]
        for step in missing:
            if step.items:
                pace = self._paces[step.kind]
                polls.append(pace.poll_at(pace.choose(step.items)))
        return min(polls, default=float("inf"))

    def _poll(self, missing: Sequence[_Missing]) -> list[bytes]:
        """Make the polls that are due, for an abort and for each step; return the first bodies found."""
        if not self._aborted and time.monotonic() >= self._abort_due:
            self._abort_due = time.monotonic() + self._settings.abort_every_s
            abort = self._get(_ABORT, lambda store, key: store.get_range(key, 0, self.limits.frame_bytes))
            if abort is not None:
                self._aborted = True
                return [abort]
        for step in missing:
            bodies = self._poll_step(step)
            if bodies:
                return bodies
        return []

    def _poll_step(self, missing: _Missing) -> list[bytes]:
        """Poll the source expected last if that is due; if it has arrived, read the others too."""
        pace = self._paces[missing.kind]
        if not missing.items:
            return []
        last = pace.choose(missing.items)
        if time.monotonic() < pace.poll_at(last):
            return []
        polled = self._fetch(missing.items[last])
        now = time.monotonic()
        if polled is None:
            pace.missed(last, now)
            return []
        others = [source for source in missing.items if source != last]
        found = dict(zip(others, self._readers.map(self._fetch, map(missing.items.__getitem__, others)), strict=True))
        # Nothing is marked as read until all reads have succeeded: if one fails, all are read again.
        arrived = {last: polled} | {source: parts for source, parts in found.items() if parts is not None}
        self._read.update(missing.items[source] for source in arrived)
        pace.came(last, arrived, now)
        if len(arrived) < len(missing.items):
            late = missing.items.keys() - arrived.keys()
            pace.missed(pace.choose(late), now)
        return [body for bodies in arrived.values() for body in bodies]

    def _fetch(self, item: Expected) -> list[bytes] | None:
        """Return the bodies for this rank in the object of `item`; None if there is no such object yet."""
        return self._get(_name(item), self._read_parts)

    def _read_parts(self, store: Store, key: str) -> list[bytes] | None:
        head = store.get_range(key, 0, self._settings.first_bytes)
        if head is None:
            return None
        size = index_size(head)
        if size > len(head):
            head += store.get_range(key, len(head), size - len(head)) or b""
        mine = [part for part in read_index(head[:size], self.limits.frame_bytes) if self._rank in part.targets]
        if not mine:
            raise ChannelError(f"it holds nothing for rank {self._rank}: its writer uses another plan", retryable=False)
        beyond = [part for part in mine if part.end > len(head)]
        ranges = [(max(part.start, len(head)), part.end - max(part.start, len(head))) for part in beyond]
        tails = dict(zip(beyond, (store.get_ranges(key, ranges) if ranges else []) or [b""] * len(beyond), strict=True))
        bodies = [head[part.start : part.end] + tails.get(part, b"") for part in mine]
        if any(len(body) != part.end - part.start for body, part in zip(bodies, mine, strict=True)):
            raise ChannelError("it ends before its last part")
        return bodies

    def _wait(self, seconds: float) -> None:
        """Wait before a retry; raise ChannelError if the channel is closed meanwhile."""
        if self._closed.wait(seconds):
            raise closed_error()

    # --- keys --------------------------------------------------------------------------------------------------------

    def _get(self, name: str, read: Callable[[Store, str], T]) -> T:
        store, key = self._place(name)
        try:
            return read(store, key)
        except (StoreError, ChannelError) as error:
            raise ChannelError(f"cannot receive {key}: {error}", retryable=error.retryable) from error

    def _place(self, name: str) -> tuple[Store, str]:
        """Return the store and the key of an object of this attempt."""
        key = f"{self._folder}/{name}"
        digest = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return self._stores[int(digest[1:], 16) % len(self._stores)], f"{digest[0]}/{key}"


_ABORT = "abort"
_SWEEPERS = 16
"""Maximum number of requests in flight that delete the objects of a run."""


@dataclass(slots=True)
class _Missing:
    """The messages of a step that are still to be read, by source."""

    kind: Kind
    step: tuple[int, int]
    items: dict[int, Expected] = field(default_factory=dict)


def _name(item: Expected) -> str:
    return f"{item.kind.name.lower()}-{item.layer}-{item.micro_batch}-{item.source}"


def sweep(stores: Sequence[Store], run: str) -> None:
    """Delete all objects of a run, those of all its attempts; takes one LIST request per store and hash folder."""

    def sweep_folder(place: tuple[Store, str]) -> None:
        store, folder = place
        store.delete([info.key for info in store.list(f"{folder}/{run}/")])

    with ThreadPool(_SWEEPERS) as threads:
        list(threads.map(sweep_folder, itertools.product(stores, HASH_FOLDERS)))
