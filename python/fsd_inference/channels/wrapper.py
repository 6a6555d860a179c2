"""What the wrappers share: a channel around another one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.channels.base import Channel, Expected, Frame


class Wrapper(Channel):
    """Hands every call on to `inner`, whose limits and meter it shares; subclasses change what they are about.

    Parameters
    ----------
    inner : Channel
        The channel around which this one is; closed with it.
    """

    def __init__(self, inner: Channel) -> None:
        self.inner = inner
        self.limits = inner.limits
        self.meter = inner.meter

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        return self.inner.send(frames)

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> list[bytes]:
        return self.inner.receive(expected, timeout_s)

    def abort(self, frame: Frame) -> None:
        self.inner.abort(frame)

    def close(self) -> None:
        self.inner.close()
