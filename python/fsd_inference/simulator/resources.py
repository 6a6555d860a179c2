"""Scarce resources of a simulated function: the threads of a pool, and its network bandwidth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Semaphore:
    """The threads of a pool: at most so many calls at a time, the others wait in order.

    Parameters
    ----------
    most : int
        How many.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def begin(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call as soon as a thread is free."""
        if self._free:
            self._free -= 1
            call(*arguments)
        else:
            self._waiting.append((call, arguments))

    def end(self) -> None:
        """Give a thread back."""
        if self._waiting:
            call, arguments = self._waiting.popleft()
            call(*arguments)
        else:
            self._free += 1


@dataclass(slots=True)
class Bandwidth:
    """Bytes a second, for one transfer after the other."""

    bytes_per_s: float
    free_at: float = 0.0

    def pass_s(self, now: float, size: float) -> float:
        """Return how long from `now` until `size` more bytes are through."""
        begin = self.free_at if self.free_at > now else now
        self.free_at = begin + size / self.bytes_per_s
        return self.free_at - now
