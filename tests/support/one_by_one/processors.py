"""The cores of one host, for which ranks, an emulated service and other programs compete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from fsd_inference.simulator.clock import Clock

_QUANTUM_S = 0.004
"""How long one of several that share a core has it at a time; Linux gives a few milliseconds."""
_FIRST_S = 0.012
"""And how long its first turn is, when it has slept before: stated; longer than a request takes."""


_Work = tuple[float, Callable[..., None], tuple[Any, ...]]
"""Seconds, and what to call then with what."""


class SharedProcessors:
    """The cores of one host, which take turns at all that is to be done on it; what has just come is first.

    As Linux has it: who slept gets a core before those that have had theirs, so that programs which compute all the
    time hold others up only in what takes more than a turn.

    Parameters
    ----------
    clock : Clock
    cores : int
    others : float
        How many other programs want a core, on average: one of them is there for a part of the time.
    """

    def __init__(self, clock: Clock, cores: int, others: float = 0.0) -> None:
        self._clock = clock
        self._free = cores
        self._new: deque[_Work] = deque()
        self._waiting: deque[_Work] = deque()
        whole, part = divmod(others, 1.0)
        for _ in range(int(whole)):
            self._compete(1.0)
        if part > 0.01:
            self._compete(part)

    def _compete(self, share: float) -> None:
        """Want a core again and again, for a share of the time."""
        pause = _QUANTUM_S * (1 / share - 1)

        def again() -> None:
            self._clock.at(self._clock.now + pause, wait)

        def wait() -> None:
            self._waiting.append((_QUANTUM_S, again, ()))
            self._take_turns()

        wait()

    def run(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call when a core has worked on it for so many seconds."""
        self._new.append((seconds, call, arguments))
        self._take_turns()

    def run_first(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """As `run`, before all that waits: for a service on the host.

        Linux shares cores among sessions (autogroup), and the service, which is one of its own, wants no more than one.
        """
        self._new.appendleft((seconds, call, arguments))
        self._take_turns()

    def _take_turns(self) -> None:
        while self._free and (self._new or self._waiting):
            most = _FIRST_S if self._new else _QUANTUM_S
            left, call, arguments = (self._new or self._waiting).popleft()
            turn = min(left, most)
            self._free -= 1
            self._clock.at(self._clock.now + turn, self._turn_over, left - turn, call, arguments)

    def _turn_over(self, left: float, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._free += 1
        if left > 0:
            self._waiting.append((left, call, arguments))
        self._take_turns()
        if left <= 0:
            call(*arguments)


class Server:
    """A service on the host, which answers one request after the other.

    Parameters
    ----------
    processors : SharedProcessors
    """

    def __init__(self, processors: SharedProcessors) -> None:
        self._processors = processors
        self._busy = False
        self._waiting: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()

    def serve(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call when a request that takes so many seconds has been served; at once if it takes none."""
        if seconds <= 0:
            call(*arguments)
            return
        self._waiting.append((seconds, call, arguments))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            seconds, call, arguments = self._waiting.popleft()
            self._processors.run_first(seconds, self._served, call, arguments)

    def _served(self, call: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self._next()
        call(*arguments)
