"""The limited resources of a simulated function: thread pools and network bandwidth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Semaphore:
    """A semaphore under virtual time that models a thread pool: calls beyond its threads wait in FIFO order.

    Parameters
    ----------
    most : int
        Number of threads.
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
        """Release a thread; if calls are waiting, make the first of them."""
        if self._waiting:
            call, arguments = self._waiting.popleft()
            call(*arguments)
        else:
            self._free += 1


@dataclass(slots=True)
class Bandwidth:
    """A network link that makes its transfers one after the other."""

    bytes_per_s: float
    free_at: float = 0.0

    def pass_s(self, now: float, size: float) -> float:
        """Queue a transfer of `size` bytes at `now`; return the seconds until it is complete."""
        begin = self.free_at if self.free_at > now else now
        self.free_at = begin + size / self.bytes_per_s
        return self.free_at - now
