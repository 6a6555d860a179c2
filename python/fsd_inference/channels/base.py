"""What a channel is: it carries frames between the ranks of one attempt, and knows no more of them than the header."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from fsd_inference.usage import UsageMeter


class Kind(IntEnum):
    """What a frame carries; the numbers are those of the frame header (rust_kernels/core/src/frame.rs)."""

    DATA = 0
    GATHER = 1
    ABORT = 2


@dataclass(frozen=True, slots=True)
class Frame:
    """A sealed frame on its way out; `body` repeats the other fields in its header."""

    kind: Kind
    layer: int
    micro_batch: int
    targets: tuple[int, ...]
    body: bytes


class Expected(NamedTuple):
    """Something a receiver still lacks: what `source` sends it in the step (`layer`, `micro_batch`)."""

    kind: Kind
    layer: int
    micro_batch: int
    source: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service takes: bytes of one frame (before any base64), frames of one batch, bytes of one batch."""

    frame_bytes: int
    batch_frames: int
    batch_bytes: int


class Channel(ABC):
    """Carries frames between the ranks of one attempt.

    Deliveries may come twice, late, out of order, or be leftovers of others: the receiver's inbox judges. A send never
    waits for the receiver's progress. All methods may be called from several threads.
    """

    limits: Limits
    meter: UsageMeter

    @abstractmethod
    def send(self, frames: Sequence[Frame]) -> Future[None]:
        """Send frames that belong to one step, without blocking.

        All frames of one (kind, layer, micro-batch) of this rank are handed over in one call. The future ends when the
        service has taken them all, or with a `ChannelError`. Frames beyond `limits` raise `LimitError` at once.
        """

    @abstractmethod
    def receive(self, expected: Sequence[Expected], timeout_s: float) -> list[bytes]:
        """Return the bodies that are there, in any order; wait up to `timeout_s` for the first.

        `expected` lists what is still missing, the most urgent first; a channel may use it to look only where something
        can be, and must also return aborts. An empty list back means "not there yet"; a failed read raises
        `ChannelError`.
        """

    @abstractmethod
    def abort(self, frame: Frame) -> None:
        """Deliver an abort to all ranks; blocks until the service has taken it or has failed (`ChannelError`)."""

    @abstractmethod
    def close(self) -> None:
        """Stop the channel's threads and release what it holds; frames not yet sent are dropped."""
