"""Work that a thread repeats for as long as a `with` block lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from fsd_inference.deadlines import CLEANUP_S
from fsd_inference.threads import Waitable, start


class Periodic(ABC):
    """Calls `step` again and again, from a thread, for the duration of a `with` block.

    Parameters
    ----------
    name : str
        Name of the thread.
    first_s : float
        Pause in seconds before the first step.
    """

    def __init__(self, name: str, first_s: float) -> None:
        self._first_s = first_s
        self._ended = threading.Event()
        self._thread = Waitable(self._repeat, name)

    def __enter__(self) -> Self:
        start(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.ended.wait(CLEANUP_S)  # no longer: the store may not answer

    @abstractmethod
    def step(self) -> float | None:
        """Do the work once; return the pause before the next step in seconds, or None if there is to be none."""

    def _repeat(self) -> None:
        pause: float | None = self._first_s
        while pause is not None and not self._ended.wait(pause):
            pause = self.step()
