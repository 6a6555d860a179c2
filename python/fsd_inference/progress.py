"""How a session says how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Takes the progress of one task after the other; called from any thread."""

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Say that `task` begins; `total` is None where its length is not known, `unit` may be "bytes"."""

    def advance(self, task: str, completed: float) -> None:
        """Say how much of `task` is completed."""

    def end(self, task: str) -> None:
        """Say that `task` is over, well or not."""

    def waiting(self, what: str) -> None:
        """Say what is waited for, once it has taken a while; need not be there."""


class Silent:
    """Progress that no one watches."""

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Do nothing."""

    def advance(self, task: str, completed: float) -> None:
        """Do nothing."""

    def end(self, task: str) -> None:
        """Do nothing."""

    def waiting(self, what: str) -> None:
        """Do nothing."""


def told_of_waits(progress: Progress) -> Callable[[str], None]:
    """Return what tells `progress` of waits; of an older kind, which has no `waiting`, nothing is asked."""
    tell: Callable[[str], None] = getattr(progress, "waiting", lambda _: None)
    return tell


@contextmanager
def task(progress: Progress, name: str, total: float | None = None, unit: str = "") -> Iterator[None]:
    """Report the block as a task."""
    progress.begin(name, total, unit)
    try:
        yield
    finally:
        progress.end(name)
