"""The interface through which the engine starts child ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

ChildEnd = Callable[[int, str, bool], None]
"""Callback for a started rank that fails: (rank, reason, whether it had reported its error to all ranks)."""


class Launcher(Protocol):
    """The starter of ranks of the launch tree."""

    def start(self, rank: int, on_end: ChildEnd) -> None:
        """Start `rank` and return; `on_end` is called, from any thread, if the rank is seen to fail.

        Raises
        ------
        FsdError
            The rank could not be started.
        """
