"""A scheduler model of one host's cores, shared by ranks, an emulated service and other programs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from fsd_inference.simulator.clock import Clock

_QUANTUM_S = 0.004
"""Time slice in seconds of processes that share a core; a few milliseconds on Linux."""
_FIRST_S = 0.012
"""First time slice in seconds of a process that was asleep: an assumption, longer than a request takes."""


_Work = tuple[float, Callable[..., None], tuple[Any, ...]]
"""Seconds of work, and the function to call afterwards with its arguments."""


class SharedProcessors:
    """A round-robin scheduler of one host's cores, which serves new work before preempted work.

    Like Linux, it gives a core first to processes that were asleep, so that programs which compute all the time delay
    others only if their work takes more than one time slice.

    Parameters
    ----------
    clock : Clock
        Virtual clock of the simulation.
    cores : int
        Number of cores.
    others : float
        Mean number of other programs that compete for a core; the fractional part is one that runs part of the time.
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
        """Add a program that uses a core for a fraction `share` of the time."""
        pause = _QUANTUM_S * (1 / share - 1)

        def again() -> None:
            self._clock.at(self._clock.now + pause, wait)

        def wait() -> None:
            self._waiting.append((_QUANTUM_S, again, ()))
            self._take_turns()

        wait()

    def run(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Schedule work of some seconds, and call a function when it is done."""
        self._new.append((seconds, call, arguments))
        self._take_turns()

    def run_first(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Schedule work as `run` does, but ahead of all waiting work: for a service on the host.

        Linux divides cores fairly between sessions (autogroup); the service is a session that uses at most one core.
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
    """A service on the host that answers requests one at a time.

    Parameters
    ----------
    processors : SharedProcessors
        Cores of the host.
    """

    def __init__(self, processors: SharedProcessors) -> None:
        self._processors = processors
        self._busy = False
        self._waiting: deque[tuple[float, Callable[..., None], tuple[Any, ...]]] = deque()

    def serve(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Queue a request that takes some seconds, and call a function when it is done; at once for 0 seconds."""
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
