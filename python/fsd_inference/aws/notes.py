"""Notes of the ranks of a running attempt: small objects that tell their coordinator and the client how it goes.

A rank that computes as fast as was foreseen writes none, but for the progress, which rank 0 writes. The first rank that
is slow tells that where the coordinator looks for failures, so that an attempt without one costs no request more.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FsdError
from fsd_inference.limits import PROGRESS_S, SLOW_S
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Foreseen, Lag, Pace
from fsd_inference.threads import ThreadPool


def progress_key(prefix: str) -> str:
    """Return the key of an attempt's progress, which is that of rank 0."""
    return f"{prefix}progress"


def told_key(prefix: str) -> str:
    """Return the key of the first thing that the coordinator of an attempt is to be told.

    It holds the failure that a rank noticed, Lambda's record of a rank if another run's coordinator received that, or
    the lag of a slow rank, which a failure replaces.
    """
    return f"{prefix}told"


def slow_folder(prefix: str) -> str:
    """Return the folder of the lags of an attempt's slow ranks."""
    return f"{prefix}slow/"


def slow_key(prefix: str, rank: int) -> str:
    """Return the key of the lag of a slow rank, as it was last."""
    return f"{slow_folder(prefix)}{rank:05d}"


class Progress(NamedTuple):
    """The layers that rank 0 has completed, and how many times slower than foreseen it computes, if that is known."""

    layers: int
    factor: float | None = None

    def to_bytes(self) -> bytes:
        """Return the object: decimal text."""
        return (f"{self.layers}" if self.factor is None else f"{self.layers} {self.factor:.3f}").encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Progress | None:
        """Parse the output of `to_bytes`; return None for anything else."""
        try:
            layers, *factor = data.decode().split()
            return cls(int(layers), *map(float, factor))
        except (ValueError, TypeError):
            return None


def tell_failure(store: Store, prefix: str, body: bytes) -> None:
    """Tell the coordinator of an attempt a failure, unless it has been told one."""
    key = told_key(prefix)
    if store.put_if_absent(key, body) is None and Lag.from_bytes(store.get(key) or b"") is not None:
        store.put(key, body)


class RankNotes:
    """The notes that one rank writes while it computes.

    Parameters
    ----------
    store : Store
        The store of the run.
    spec : RunSpec
        The attempt.
    rank : int
        This rank.
    thread : ThreadPool
        Writes the notes in the background, one at a time.
    """

    def __init__(self, store: Store, spec: RunSpec, rank: int, thread: ThreadPool) -> None:
        self._store = store
        self._prefix = spec.prefix
        self._rank = rank
        self._has_others = spec.settings.workers > 1
        self._thread = thread
        self._foreseen = Foreseen()
        self._progress_due = time.monotonic() + PROGRESS_S
        self._slow_due = 0.0
        self._is_known = False  # to the coordinator

    def on_layer(self, pace: Pace) -> None:
        """Take the rank's pace after a layer; have written what is due."""
        self._foreseen.note(pace)
        now = time.monotonic()
        if self._rank == 0 and now >= self._progress_due:
            self._progress_due = now + PROGRESS_S
            progress = Progress(pace.layers, self._foreseen.factor)
            self._thread.submit(self._write, progress_key(self._prefix), progress.to_bytes())
        lag = self._foreseen.lag
        if lag is not None and self._has_others and now >= self._slow_due:
            self._slow_due = now + SLOW_S
            self._thread.submit(self._tell_lag, lag)

    def _write(self, key: str, body: bytes) -> None:
        with suppress(FsdError):  # notes are optional for their readers
            self._store.put(key, body)

    def _tell_lag(self, lag: Lag) -> None:
        self._write(slow_key(self._prefix, self._rank), lag.to_bytes())
        if not self._is_known:
            with suppress(FsdError):
                self._store.put_if_absent(told_key(self._prefix), lag.to_bytes())
                self._is_known = True
