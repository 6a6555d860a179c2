"""What a channel tells, frame by frame."""

from __future__ import annotations

from typing import Protocol

from fsd_inference.errors import ChannelError
from tests.support.one_by_one.rank import EventRank, Message


class EventListener(Protocol):
    """Hears what channels bring."""

    def came(self, rank: EventRank, messages: list[Message]) -> None:
        """Hand messages, each a frame, to a rank."""

    def failed(self, rank: EventRank, error: ChannelError) -> None:
        """Say that a request was refused too often."""
