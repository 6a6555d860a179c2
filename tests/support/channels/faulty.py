"""A channel wrapper that injects faults of networks and services, reproducibly from a seed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from fsd_inference.channels.base import Body, Channel, Expected, Frame
from fsd_inference.channels.wrapper import Wrapper
from fsd_inference.errors import ChannelError


@dataclass(frozen=True, slots=True)
class Faults:
    """The kinds and the rates of injected faults.

    Attributes
    ----------
    duplicate : float
        Fraction of bodies that are delivered twice in one `receive`.
    stray : float
        Fraction of bodies that a later `receive` delivers again.
    reorder : bool
        Whether the bodies of one `receive` are shuffled, and some delayed to a later one.
    inject : float
        Fraction of `receive` calls that also deliver one of `foreign`.
    foreign : tuple of bytes
        Bodies that do not belong to this attempt: of stale attempts, of other runs, or invalid ones.
    throttle : float
        Fraction of sends that fail with a `ChannelError`, as if a service throttled until retries are exhausted.
    slow_read_s : float
        Additional seconds of each `receive` that returns something.
    seed : int
        Seed of the random draws.
    """

    duplicate: float = 0.0
    stray: float = 0.0
    reorder: bool = False
    inject: float = 0.0
    foreign: tuple[bytes, ...] = ()
    throttle: float = 0.0
    slow_read_s: float = 0.0
    seed: int = 0


class Faulty(Wrapper):
    """A channel that duplicates, reorders, delays and injects bodies, and fails sends, as configured by `faults`.

    Every body that `inner` delivers is still delivered, at the latest by the second `receive` after it.

    Parameters
    ----------
    inner : Channel
        The channel to disturb.
    faults : Faults
        Faults to inject.
    """

    def __init__(self, inner: Channel, faults: Faults) -> None:
        super().__init__(inner)
        self._faults = faults
        self._random = random.Random(faults.seed)
        self._lock = threading.Lock()
        self._held: list[Body] = []

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        with self._lock:
            refused = self._random.random() < self._faults.throttle
        if not refused:
            return self.inner.send(frames)
        future: Future[None] = Future()
        future.set_exception(ChannelError("the service still throttles after all retries (an injected fault)"))
        return future

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
        with self._lock:
            held = bool(self._held)
        received = self.inner.receive(expected, 0.0 if held else timeout_s)
        with self._lock:
            bodies = self._disturb(received)
        if bodies and self._faults.slow_read_s:
            time.sleep(self._faults.slow_read_s)
        return bodies

    def _disturb(self, received: Sequence[Body]) -> list[Body]:
        draw, faults = self._random.random, self._faults
        now, later = self._held, list[Body]()
        for body in received:
            (later if received[1:] and faults.reorder and draw() < 0.5 else now).append(body)
            if draw() < faults.duplicate:
                now.append(body)
            if draw() < faults.stray:
                later.append(body)
        if faults.foreign and draw() < faults.inject:
            now.append(self._random.choice(faults.foreign))
        if not now:
            now, later = later, []
        if faults.reorder:
            self._random.shuffle(now)
        self._held = later
        return now
