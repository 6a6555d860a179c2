"""Channels between threads of one process, which also serve as the test oracle for the others."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.channels.base import Body, Channel, Expected, Frame, Limits
from fsd_inference.channels.mailbox import Mailbox
from fsd_inference.channels.sending import check_frames, check_limits, closed_error, done
from fsd_inference.usage import UsageMeter

LOCAL_LIMITS = Limits(frame_bytes=64 << 20, batch_frames=1 << 20, batch_bytes=1 << 40, is_fast=True)
"""Limits of channels on this machine: a frame fits into one buffer, and batches are practically unlimited."""


class InProcessHub:
    """The connection between `workers` ranks of one attempt inside this process.

    Parameters
    ----------
    workers : int
        P.
    limits : Limits, optional
        Size limits of the channels; tests pass small ones.
    """

    def __init__(self, workers: int, *, limits: Limits = LOCAL_LIMITS) -> None:
        self.limits = limits
        self.mailboxes = tuple(Mailbox() for _ in range(workers))

    def channel(self, rank: int) -> InProcessChannel:
        """Return the channel of one rank; call it once for each rank."""
        return InProcessChannel(self, rank)


class InProcessChannel(Channel):
    """One rank's channel of an `InProcessHub`; bodies are passed by reference."""

    def __init__(self, hub: InProcessHub, rank: int) -> None:
        self.limits = hub.limits
        self.meter = UsageMeter()
        self._mailboxes = hub.mailboxes
        self._mailbox = hub.mailboxes[rank]
        self._closed = False

    def send(self, frames: Sequence[Frame]) -> Future[None]:
        if self._closed:
            raise closed_error()
        check_frames(frames, self.limits, len(self._mailboxes))
        for frame in frames:
            for target in frame.targets:
                self._mailboxes[target].put([frame.body])
            self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))
        return done()

    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:  # noqa: ARG002 - takes all
        bodies = self._mailbox.take(timeout_s)
        self.meter.received(sum(map(len, bodies)))
        return bodies

    def abort(self, frame: Frame) -> None:
        if self._closed:
            raise closed_error()
        check_limits([frame], self.limits)
        for mailbox in self._mailboxes:
            mailbox.put([frame.body])
        self.meter.sent(frames=1, wire_bytes=len(frame.body), body_bytes=len(frame.body))

    def close(self) -> None:
        self._closed = True
        self._mailbox.close()
