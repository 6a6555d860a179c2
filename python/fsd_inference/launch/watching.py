"""The session's view of the ranks of an attempt: when each process started and ended, and whether the attempt hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fsd_inference.config import Clocks
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import died
from fsd_inference.errors import RunError, StallError, StartError
from fsd_inference.launch.processes import EXIT_REPORTED
from fsd_inference.launch.requests import RANK_ALIVE, RANK_ENDED, RANK_FAILED, RANK_PACE, RANK_STARTED
from fsd_inference.stragglers import Lag, Pace, Paces, Straggler

_QUIET_S = 3.0
"""Seconds without news of any rank after which those that still run are taken to be stopped, once one has failed."""
_ABORT_S = 10.0
"""Seconds in which the ranks must have ended after the first failure."""
_GAP_S = 5.0
"""Seconds between two checks after which this process was stopped itself, and still has to read what ranks told it."""


class RankWatch:
    """What the session has heard of the ranks' processes; its methods may be called from any thread.

    Parameters
    ----------
    tree : Tree
        The launch tree.
    clocks : Clocks
        Timeouts of the attempt.
    now : callable
        Returns the time in seconds.
    how_ended : callable
        Returns how a process ended, given its rank and exit code.
    on_layer : callable
        Called with the number of layers that rank 0 has completed.
    on_straggler : callable
        Called with each rank that is found to be much slower than the others.

    Attributes
    ----------
    errors : list of RunError
        Failures that the ranks themselves may not be able to report.
    """

    def __init__(
        self,
        tree: Tree,
        clocks: Clocks,
        *,
        now: Callable[[], float],
        how_ended: Callable[[int, int], str],
        on_layer: Callable[[float], None],
        on_straggler: Callable[[Straggler], None],
    ) -> None:
        self.errors: list[RunError] = []
        self._tree = tree
        self._clocks = clocks
        self._now = now
        self._how_ended = how_ended
        self._on_layer = on_layer
        self._on_straggler = on_straggler
        self._paces = Paces(tree.workers)
        self._lock = threading.Lock()
        self._began = self._heard = self._checked = now()
        self._started = {0}
        self._ended: dict[int, int] = {}  # rank -> exit code
        self._failed_at: float | None = None
        self._layers = 0  # that rank 0 has completed

    def on_line(self, line: str) -> None:
        """Take a line from the connection of rank 0: what it wrote itself, or what the fork server says of a rank."""
        match line.split():
            case [word, rank] if word == RANK_STARTED:
                with self._lock:
                    self._started.add(int(rank))
            case [word, rank, layers, of, busy_s] if word == RANK_PACE:
                with self._lock:
                    pace = Pace(self._now(), int(rank), int(layers), float(busy_s), of=int(of))
                    found = self._paces.note(pace)
                if found is not None:
                    self._on_straggler(found)
            case [word, _] if word == RANK_ALIVE:
                with self._lock:
                    self._heard = self._now()
            case [word, _] if word == RANK_FAILED:
                with self._lock:
                    self._fail()
            case [word, rank, code] if word == RANK_ENDED:
                self._end(int(rank), int(code))
            case [layers] if layers.isdecimal():
                with self._lock:
                    self._heard, self._layers = self._now(), int(layers)
                self._on_layer(float(layers))

    def _end(self, rank: int, code: int) -> None:
        with self._lock:
            self._ended[rank] = code
            if code == 0:
                self._heard = self._now()
                return
            # Once a rank has failed, others may be killed for that reason.
            if code != EXIT_REPORTED and self._failed_at is None:
                self.errors.append(died(rank, self._how_ended(rank, code)))
            self._fail()

    def _fail(self) -> None:
        self._heard = self._now()
        self._failed_at = self._heard if self._failed_at is None else self._failed_at

    def straggler(self) -> tuple[Lag, float] | None:
        """Return what a straggler is at, and how many seconds the attempt took to start; None without one."""
        with self._lock:
            lag = self._paces.worst
            return None if lag is None else (lag, lag.began - self._began)

    def is_over(self) -> bool:
        """Return whether the ranks that still run are to be killed: one has failed, or the attempt hangs."""
        now = self._now()
        with self._lock:
            if now - self._checked > _GAP_S:
                self._heard = now
            self._checked = now
            if self._failed_at is not None:
                return now - self._heard > _QUIET_S or now - self._failed_at > _ABORT_S
            hangs = self._not_started(now) or self._rank_0_stalls(now)
            self.errors += [] if hangs is None else [hangs]
            return hangs is not None

    def _not_started(self, now: float) -> RunError | None:
        """Return the error of a rank that has not started its children in time."""
        missing = min(set(range(self._tree.workers)) - self._started, default=None)
        if missing is None or now - self._began <= self._clocks.start_s:
            return None
        starter = self._tree.parent(missing)
        return StartError(
            f"rank {starter} did not start rank {missing} within {self._clocks.start_s:g} s; check the load of this "
            "machine and try again",
            rank=starter,
            operation="start",
        )

    def _rank_0_stalls(self, now: float) -> RunError | None:
        """Return the error of a rank 0 that is silent when no other runs, which could name it."""
        others = self._tree.workers - 1
        if len(self._ended) < others or now - self._heard <= self._clocks.stall_s:
            return None
        layer = max(0, self._layers - 1)
        when = ", when all other ranks had ended" if others else ""
        return StallError(
            f"rank 0 stopped responding after layer {layer}{when}; try again",
            rank=0,
            layer=layer,
            operation="run",
        )
