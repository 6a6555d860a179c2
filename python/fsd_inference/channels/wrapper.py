"""The base class of channel wrappers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.channels.base import Body, Channel, Expected, Frame


class Wrapper(Channel):
    """A channel that delegates every call to `inner` and shares its limits and meter; subclasses override methods.

    Parameters
    ----------
    inner : Channel
        The wrapped channel; `close` closes it too.
    """

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.limits = inner.limits
        self.meter = inner.meter

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        return self.inner.send(frames)

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
        return self.inner.receive(expected, timeout_s)

    def abort(self, frame: Frame) -> None:
        self.inner.abort(frame)

    def close(self) -> None:
        self.inner.close()
