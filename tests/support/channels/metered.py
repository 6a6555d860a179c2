"""A channel wrapper that measures the frames, bytes and seconds that each step sends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import NamedTuple

from fsd_inference.channels.base import Body, Channel, Expected, Frame, Kind
from fsd_inference.channels.wrapper import Wrapper


class SentStep(NamedTuple):
    """The step that a send belongs to: kind of frame, layer and micro-batch."""

    kind: Kind
    layer: int
    micro_batch: int


@dataclass(frozen=True, slots=True)
class SendTotals:
    """Totals of the sends of one step.

    Attributes
    ----------
    frames, deliveries : int
        Number of frames, and of (frame, target) pairs.
    wire_bytes : int
        Bytes of those frames, each counted once.
    seconds : float
        Seconds from passing the frames to the channel until the service has accepted all of them.
    failures : int
        Number of sends that ended with an error.
    """

    frames: int = 0
    deliveries: int = 0
    wire_bytes: int = 0
    seconds: float = 0.0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class ChannelEvent:
    """An event on the channel.

    Attributes
    ----------
    name : str
        ``"send"`` (frames passed to the channel), ``"sent"`` (accepted by the service), ``"send_failed"``,
        ``"received"`` or ``"abort"``.
    at : float
        Time in seconds on the wrapper's clock.
    step : SentStep or None
        Step that it belongs to; None for ``"received"``.
    count, size : int
        Number of frames or bodies, and their bytes.
    """

    name: str
    at: float
    step: SentStep | None
    count: int
    size: int


class Metered(Wrapper):
    """A channel that measures its sends by step, and reports events.

    Parameters
    ----------
    inner : Channel
        The channel to measure.
    on_event : callable, optional
        Called with each `ChannelEvent`, in the thread in which it occurs.
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
        """Return the totals by step so far; seconds and failures include only sends that have ended."""
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

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
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
