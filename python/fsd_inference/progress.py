"""The progress protocol: callbacks through which a session reports the progress of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Progress(Protocol):
    """Receives the progress of tasks; methods may be called from any thread."""

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Report that `task` begins; `total` is None if its length is unknown, `unit` may be "bytes"."""

    def advance(self, task: str, completed: float) -> None:
        """Report how much of `task` is completed, in the unit of its total."""

    def end(self, task: str) -> None:
        """Report that `task` has ended, successfully or not."""

    def waiting(self, what: str) -> None:
        """Report what a task is waiting for, if that takes long; implementations may omit this method."""


class Silent:
    """Discards all progress."""

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        """Do nothing."""

    def advance(self, task: str, completed: float) -> None:
        """Do nothing."""

    def end(self, task: str) -> None:
        """Do nothing."""

    def waiting(self, what: str) -> None:
        """Do nothing."""


def told_of_waits(progress: Progress) -> Callable[[str], None]:
    """Return the `waiting` method of `progress`, or a function that does nothing if it has none."""
    tell: Callable[[str], None] = getattr(progress, "waiting", lambda _: None)
    return tell


@contextmanager
def task(progress: Progress, name: str, total: float | None = None, unit: str = "") -> Iterator[None]:
    """Report a `with` block as a task."""
    progress.begin(name, total, unit)
    try:
        yield
    finally:
        progress.end(name)
