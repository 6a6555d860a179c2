"""Heartbeat of a coordinator: an object that it writes every few seconds, so that its client soon notices its death."""

from __future__ import annotations

from fsd_inference.aws.periodic import Periodic
from fsd_inference.deadlines import within
from fsd_inference.errors import FsdError
from fsd_inference.limits import HEARTBEAT_S, SILENCE_S
from fsd_inference.logs import Logger
from fsd_inference.store.base import Store

_log = Logger(__name__)


class Heartbeat(Periodic):
    """Writes an object every `HEARTBEAT_S` seconds, from a thread, for the duration of a `with` block.

    Parameters
    ----------
    store : Store
    key : str
        Key of the object.
    """

    def __init__(self, store: Store, key: str) -> None:
        super().__init__("heartbeat", HEARTBEAT_S)
        self._store = store
        self._key = key
        self._beats = 0

    def step(self) -> float:
        """Write the object once; return the pause before the next time in seconds."""
        self._beats += 1
        try:
            with within(HEARTBEAT_S):
                self._store.put(self._key, str(self._beats).encode())
        except FsdError as error:  # the next one may succeed
            _log.info("%s was not written: %s", self._key, error)
        return HEARTBEAT_S


class Pulse:
    """What a client knows of a coordinator's heartbeat; times are those of the client's monotonic clock.

    Parameters
    ----------
    store : Store
    key : str
        Key of the object.
    now : float
        Time at which the coordinator gave another sign of life.
    """

    def __init__(self, store: Store, key: str, now: float) -> None:
        self._store = store
        self._key = key
        self._tag = ""
        self._heard = self._looked = now

    def is_lost(self, now: float) -> bool:
        """Return whether the coordinator has been silent for `SILENCE_S`; take one request every `HEARTBEAT_S`."""
        if now < self._looked + HEARTBEAT_S:
            return False
        self._looked = now
        found = self._store.stat(self._key)
        if found is not None and found.etag != self._tag:
            self._tag, self._heard = found.etag, now
        return now >= self._heard + SILENCE_S
