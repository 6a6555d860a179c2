"""A wrapper that says what each step sent, and how long that took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import NamedTuple

from fsd_inference.channels.base import Channel, Expected, Frame, Kind
from fsd_inference.channels.wrapper import Wrapper


class SentStep(NamedTuple):
    """What a send belonged to."""

    kind: Kind
    layer: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class SendTotals:
    """What one step sent.

    Attributes
    ----------
    frames, deliveries : int
        Frames, each once, and (frame, target) pairs.
    wire_bytes : int
        Bytes of those frames, each once.
    seconds : float
        From handing the frames over to the service having taken them all.
    failures : int
        Sends that ended with an error.
    """

    frames: int = 0
    deliveries: int = 0
    wire_bytes: int = 0
    seconds: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """Something that happened, for a rank's event log.

    Attributes
    ----------
    name : str
        ``"send"`` (frames handed over), ``"sent"`` (the service has taken them), ``"send_failed"``, ``"received"``
        or ``"abort"``.
    at : float
        When, on the wrapper's clock.
    step : SentStep or None
        What it belonged to; None for ``"received"``.
    count, size : int
        Frames or bodies, and their bytes.
    """

    name: str
    at: float
    step: SentStep | None
    count: int
    size: int


class Metered(Wrapper):
    """Measures sends per step and reports events.

    Parameters
    ----------
    inner : Channel
        The channel to measure.
    on_event : callable, optional
        Called with each `ChannelEvent`, from the thread in which it happened.
    clock : callable, optional
        Returns the time in seconds; `time.monotonic` by default.
    """

    def __init__(
        self,
        inner: Channel,
        *,
        on_event: Callable[[ChannelEvent], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        self._on_event = on_event
        self._clock = clock
        self._lock = threading.Lock()
        self._totals: dict[SentStep, SendTotals] = {}

    def totals(self) -> dict[SentStep, SendTotals]:
        """Return what each step has sent so far; seconds and failures of sends that have ended."""
        with self._lock:
            return dict(self._totals)

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        if not frames:
            return self.inner.send(frames)
        step = SentStep(frames[0].kind, frames[0].layer, frames[0].micro_batch)
        count, size = len(frames), sum(len(frame.body) for frame in frames)
        begun = self._clock()
        future = self.inner.send(frames)
        self._add(step, frames=count, deliveries=sum(len(frame.targets) for frame in frames), wire_bytes=size)
        self._report("send", begun, step, count, size)

        def ended(done: Future[None]) -> None:
            now = self._clock()
            failed = done.cancelled() or done.exception() is not None
            self._add(step, seconds=now - begun, failures=int(failed))
            self._report("send_failed" if failed else "sent", now, step, count, size)

        future.add_done_callback(ended)
        return future

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> list[bytes]:
        bodies = self.inner.receive(expected, timeout_s)
        if bodies:
            self._report("received", self._clock(), None, len(bodies), sum(map(len, bodies)))
        return bodies

    def abort(self, frame: Frame) -> None:
        self._report("abort", self._clock(), SentStep(frame.kind, frame.layer, frame.micro_batch), 1, len(frame.body))
        self.inner.abort(frame)

    def _add(self, step: SentStep, **added: float) -> None:
        with self._lock:
            totals = self._totals.get(step, SendTotals())
            self._totals[step] = replace(totals, **{name: getattr(totals, name) + more for name, more in added.items()})

    def _report(self, name: str, at: float, step: SentStep | None, count: int, size: int) -> None:
        if self._on_event is not None:
            self._on_event(ChannelEvent(name, at, step, count, size))
