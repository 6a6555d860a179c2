"""What is scarce: processors, a function's network, environments, requests a second; and what is left to chance."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from fsd_inference.cost.simulator.clock import Clock
from fsd_inference.cost.timing import LATENCIES, Timing

_QUANTUM_S = 0.004
"""How long one of several that share a core has it at a time; Linux gives a few milliseconds."""

_FIRST_S = 0.012
"""And how long its first turn is, when it has slept before: stated; longer than a request takes."""
_DRAWN = 1024
"""Latencies that are drawn together, which is quicker."""


class Draws:
    """Seeded draws of latencies.

    Parameters
    ----------
    timing : Timing
    seed : int
        Equal seeds give equal draws.
    """

    def __init__(self, timing: Timing, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._latencies = {name: timing.latency(name) for name in LATENCIES}
        self._drawn: dict[str, list[float]] = {name: [] for name in LATENCIES}

    def latency(self, name: str) -> float:
        """Return a draw in seconds of one of `LATENCIES`."""
        drawn = self._drawn[name]
        if not drawn:
            drawn += self._some(name, _DRAWN)
        return drawn.pop()

    def latencies(self, name: str, count: int) -> list[float]:
        """Return several draws of one of `LATENCIES`."""
        drawn = self._drawn[name]
        if len(drawn) < count:
            drawn += self._some(name, count + _DRAWN)
        some = drawn[-count:] if count else []
        del drawn[len(drawn) - count :]
        return some

    def uniform(self) -> float:
        """Return a draw from 0 to 1."""
        return float(self._random.random())

    def _some(self, name: str, count: int) -> list[float]:
        latency = self._latencies[name]
        if latency.median_s <= 0:
            return [0.0] * count
        some: list[float] = (latency.median_s * np.exp(latency.sigma * self._random.standard_normal(count))).tolist()
        return some


class Processors(Protocol):
    """Where work is done."""

    def run(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call when so many seconds of work on a core are done."""

    def run_first(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """As `run`, for a service on the host: before all that ranks have to do.

        Linux shares cores among sessions (autogroup), and the service, which is one of its own, wants no more than one.
        """


@dataclass(frozen=True, slots=True)
class OwnProcessors:
    """Processors that no one else uses: a function's. Its threads do not slow each other down."""

    clock: Clock

    def run(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call when so many seconds have passed."""
        self.clock.at(self.clock.now + seconds, call, *arguments)

    run_first = run


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
        """As `run`, before all that waits."""
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
    processors : Processors
    """

    def __init__(self, processors: Processors) -> None:
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


class NoServer(Server):
    """A service elsewhere, whose time is in the latencies."""

    def serve(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:  # noqa: ARG002
        """Call at once."""
        call(*arguments)


class Turns:
    """So many at a time: the threads of a pool.

    Parameters
    ----------
    most : int
        How many.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def begin(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call when it is its turn."""
        if self._free:
            self._free -= 1
            call(*arguments)
        else:
            self._waiting.append((call, arguments))

    def end(self) -> None:
        """Say that one that was called is done."""
        if self._waiting:
            call, arguments = self._waiting.popleft()
            call(*arguments)
        else:
            self._free += 1


@dataclass(slots=True)
class Line:
    """A connection of so many bytes a second, one transfer after the other."""

    bytes_per_s: float
    free_at: float = 0.0

    def pass_s(self, now: float, size: float) -> float:
        """Return how long from `now` until `size` more bytes are through."""
        begin = self.free_at if self.free_at > now else now
        self.free_at = begin + size / self.bytes_per_s
        return self.free_at - now


@dataclass(slots=True)
class Rate:
    """So many a second, of which some seconds' worth may come at once."""

    per_s: float
    burst: float
    _full_at: float = -math.inf  # when as many as may come at once would have been taken in, at the rate
    _windows: dict[float, float] = field(default_factory=dict)

    def admits(self, now: float, count: float = 1.0) -> bool:
        """Whether `count` more may come now, and count them if so."""
        level = max(self._full_at, now)
        if level - now > self.burst / self.per_s:
            return False
        self._full_at = level + count / self.per_s
        return True

    def admits_any(self, time: float, count: float = 1.0) -> bool:
        """Whether `count` more may come at a `time` that may lie before another's: so many within each burst's time."""
        windows, window = self._windows, time * self.per_s // self.burst
        admitted = windows.get(window, 0.0)
        if admitted >= self.burst:
            return False
        windows[window] = admitted + count
        return True

    def wait_s(self, now: float) -> float:
        """Return how long one more has to wait, and count it."""
        level = max(self._full_at, now)
        self._full_at = level + 1 / self.per_s
        return max(0.0, self._full_at - now - self.burst / self.per_s)
