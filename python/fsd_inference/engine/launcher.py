"""What the engine asks of whatever starts ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

ChildEnd = Callable[[int, str, bool], None]
"""Called when a started rank ends badly: (rank, reason, whether it had reported its error to all ranks)."""


class Launcher(Protocol):
    """Starts ranks of the launch tree."""

    def start(self, rank: int, on_end: ChildEnd) -> None:
        """Start `rank` and return; `on_end` is called, from any thread, if it is seen to end badly.

        Raises
        ------
        FsdError
            The rank could not be started.
        """
