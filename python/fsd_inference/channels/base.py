"""The interface of all channels, which carry frames between ranks and read nothing of a frame but its header."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from fsd_inference.usage import UsageMeter

Body = bytes | memoryview
"""A received frame; a view is read-only, and nothing else uses its memory."""


class Kind(IntEnum):
    """The content of a frame; the values are those of the frame header (rust_kernels/core/src/frame.rs)."""

    DATA = 0
    GATHER = 1
    ABORT = 2
    REPEAT = 3


@dataclass(frozen=True, slots=True)
class Frame:
    """A sealed frame to send; the header in `body` holds the other fields too."""

    kind: Kind
    layer: int
    micro_batch: int
    targets: tuple[int, ...]
    body: bytes


class Expected(NamedTuple):
    """A message that a receiver still waits for: the one from `source` in the step (`layer`, `micro_batch`)."""

    kind: Kind
    layer: int
    micro_batch: int
    source: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The size limits of a channel's service, whether its bytes are cheap, and whether it may lose some.

    Attributes
    ----------
    frame_bytes : int
        Maximum bytes of one frame, before any base64 encoding.
    batch_frames : int
        Maximum frames of one batch.
    batch_bytes : int
        Maximum bytes of one batch.
    is_fast : bool
        Whether bytes travel at the speed of memory, so that compressing them takes longer than sending them.
    may_lose : bool
        Whether a frame that the service has accepted may not arrive before the run's deadline: with the answer that
        carried it, for example. The receiver then asks for it again.
    """

    frame_bytes: int
    batch_frames: int
    batch_bytes: int
    is_fast: bool = False
    may_lose: bool = False


class Channel(ABC):
    """A carrier of frames between the ranks of one attempt.

    Frames may be delivered twice, late or out of order, or be left over from other runs: the receiver's inbox filters
    them. A send never waits for the receiver's progress. All methods are thread-safe.
    """

    limits: Limits
    meter: UsageMeter

    @abstractmethod
    def send(self, frames: Sequence[Frame]) -> Future[None]:
        """Send the frames of one step without blocking.

        One call must hand over all frames of one (kind, layer, micro-batch) of this rank. The future completes when the
        service has accepted them all, or with a `ChannelError`. Frames that exceed `limits` raise `LimitError` at once.
        """

    @abstractmethod
    def receive(self, expected: Sequence[Expected], timeout_s: float) -> Sequence[Body]:
        """Return the bodies that have arrived, in any order; wait up to `timeout_s` seconds for the first.

        `expected` lists the missing messages, the most urgent first; a channel may poll for these only, but must also
        return aborts. An empty list means that nothing has arrived yet; a failed read raises `ChannelError`.
        """

    @abstractmethod
    def abort(self, frame: Frame) -> None:
        """Send an abort to all ranks; block until the service has accepted it; raise `ChannelError` if it fails."""

    @abstractmethod
    def close(self) -> None:
        """Stop the channel's threads and release its resources; frames not yet sent are dropped."""
