"""Helpers for sending that all channels share: checks of frames, and a future for several requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.channels.base import Frame, Limits
from fsd_inference.errors import ChannelError, LimitError


def closed_error() -> ChannelError:
    """Return the error for calls on a closed channel."""
    return ChannelError("the channel is closed: open another one for another attempt")


def check_limits(frames: Sequence[Frame], limits: Limits) -> None:
    """Raise `LimitError` if a frame has more bytes than the channel accepts."""
    for frame in frames:
        if len(frame.body) > limits.frame_bytes:
            raise LimitError(
                f"{_name(frame)} has {len(frame.body)} bytes, but the channel accepts {limits.frame_bytes} at most: "
                "pack it into more parts"
            )


def check_frames(frames: Sequence[Frame], limits: Limits, workers: int) -> None:
    """Raise `LimitError` or `ChannelError` if frames are too long, empty, of several steps, or for unknown ranks."""
    check_limits(frames, limits)
    steps = {(frame.kind, frame.layer, frame.micro_batch) for frame in frames}
    if len(steps) > 1:
        raise ChannelError(
            f"one send has frames of {len(steps)} steps: send each step's frames in a separate call",
            retryable=False,
        )
    for frame in frames:
        if not frame.body:
            raise ChannelError(f"{_name(frame)} is empty: it lacks even a header", retryable=False)
        if not frame.targets or not all(0 <= target < workers for target in frame.targets):
            raise ChannelError(
                f"{_name(frame)} is for ranks {list(frame.targets)}, but the ranks are 0..{workers - 1}",
                retryable=False,
            )


def _name(frame: Frame) -> str:
    return f"the {frame.kind.name.lower()} frame of layer {frame.layer}, micro-batch {frame.micro_batch}"


def done() -> Future[None]:
    """Return a future that has already completed."""
    future: Future[None] = Future()
    future.set_result(None)
    return future


class Joined:
    """A future for several pieces of work: completes when all have ended, with the first error if any.

    Parameters
    ----------
    pieces : int
        Number of pieces, at least 1.
    """

    def __init__(self, pieces: int) -> None:
        self.future: Future[None] = Future()
        self.future.set_running_or_notify_cancel()
        self._lock = threading.Lock()
        self._left = pieces
        self._error: BaseException | None = None

    def end(self, error: BaseException | None = None) -> None:
        """Report that one piece has ended."""
        with self._lock:
            self._left -= 1
            self._error = self._error or error
            if self._left:
                return
        if self._error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self._error)
