"""The interface through which channel models report frames to the simulation."""

from __future__ import annotations

from typing import Protocol

from fsd_inference.errors import ChannelError
from tests.support.one_by_one.rank import EventRank, Message


class EventListener(Protocol):
    """Receives the frames and failures of a channel model."""

    def came(self, rank: EventRank, messages: list[Message]) -> None:
        """Deliver messages, each one frame, to a rank."""

    def failed(self, rank: EventRank, error: ChannelError) -> None:
        """Report that a request of a rank failed after all retries."""
