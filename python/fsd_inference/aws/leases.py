"""The objects that hold the leases of lanes, and a view of all of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args
from uuid import uuid4

from fsd_inference.aws.hidden_messages import HiddenMessages
from fsd_inference.errors import LaneError, StoreError
from fsd_inference.fields import load_json
from fsd_inference.store import Store

State = Literal["free", "held", "draining"]
TICK_S = 1.0
"""Resolution of the store's times, in seconds."""

_VERSION = 1
_FOLDER = "lanes/"
_CLOCK_KEY = "lane-clock"
_UNREAD_S = 120.0  # assumed duration of a lease that changed while it was read, in seconds
_LONGEST_S = 7 * 86_400.0  # upper limit of a valid lease's duration


@dataclass(frozen=True, slots=True)
class Entry:
    """The content of a lease object, with its version tag and modification time.

    Attributes
    ----------
    state : {"free", "held", "draining"}
    run, attempt
        The attempt that holds the lane, or held it last.
    lasts_s : float
        Seconds for which the state lasts.
    hidden : HiddenMessages
        What hides in the lane's queues.
    etag : str
        Version tag of the object.
    since : datetime
        Its modification time, which is when the state began.
    """

    state: State
    run: str
    attempt: int
    lasts_s: float
    hidden: HiddenMessages
    etag: str
    since: datetime

    @property
    def until(self) -> datetime:
        """The time at which the state has certainly ended."""
        return self.since + timedelta(seconds=self.lasts_s + TICK_S)


class LeaseView:
    """A client's cached view of all leases and of the store's clock, refreshed while it waits for a lane."""

    def __init__(self, store: Store, lanes: int, clock: Callable[[], float]) -> None:
        self._store = store
        self._lanes = lanes
        self._clock = clock
        self._entries: dict[int, Entry] = {}
        self._store_time: tuple[datetime, float] | None = None

    def read(self) -> dict[int, Entry]:
        """Return the current entries of all leases by lane, reading only the objects that have changed."""
        known: dict[int, Entry] = {}
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
                known[lane] = Entry("held", "another", 0, _UNREAD_S, HiddenMessages(), info.etag, info.modified)
        self._entries = known
        return known

    def is_over(self, entry: Entry) -> bool:
        """Return whether the state of a lease has ended by the store's clock."""
        return self._now() >= entry.until

    def _now(self) -> datetime:
        """Return a lower bound of the store's current time."""
        if self._store_time is None:
            self._store_time = (store_time(self._store), self._clock())
        written, then = self._store_time
        return written + timedelta(seconds=self._clock() - then)

    def holders(self) -> str:
        """Return a description of the leases that are not free."""
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


def lease_key(lane: int) -> str:
    """Return the key of a lane's lease."""
    return f"{_FOLDER}{lane:04}.json"


def lease_data(state: State, run: str, attempt: int, lasts_s: float, hidden: HiddenMessages) -> bytes:
    """Return the content of a lease object."""
    value = {
        "version": _VERSION,
        "state": state,
        "run": run,
        "attempt": attempt,
        "lasts_s": lasts_s,
        "hidden": hidden.to_json(),
        "nonce": uuid4().hex,  # two versions with equal content would have equal tags
    }
    return json.dumps(value).encode()


def _lane_of(key: str) -> int | None:
    number = key.removeprefix(_FOLDER).removesuffix(".json")
    return int(number) if number.isdecimal() and key == lease_key(int(number)) else None


def _parse(data: bytes, key: str, etag: str, since: datetime) -> Entry:
    try:
        value = load_json(data)
        entry = Entry(
            value["state"],
            str(value["run"]),
            int(value["attempt"]),
            float(value["lasts_s"]),
            HiddenMessages.from_json(value["hidden"]) if "hidden" in value else HiddenMessages(),
            etag,
            since,
        )
        is_ours = value["version"] == _VERSION and entry.state in get_args(State) and 0 <= entry.lasts_s < _LONGEST_S
    except (ValueError, KeyError, TypeError):
        is_ours = False
    if not is_ours:
        message = f"object {key} is not a lease that this version can read: delete it if no run uses the lane"
        raise LaneError(message, retryable=False)
    return entry
