"""A launcher that starts ranks as local processes, through the session's fork server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from fsd_inference.engine.launcher import ChildEnd
from fsd_inference.errors import ResourceLimitError, RunError
from fsd_inference.launch.requests import GONE, Child, Requests
from fsd_inference.threads import Waitable, start, why_not_started

EXIT_REPORTED = 3
"""Exit code of a rank that failed and has reported its error to the other ranks."""

_KILLED_S = 10.0
"""Seconds to wait for a killed process to end."""


class ProcessLauncher:
    """Starts ranks as processes that do not outlive this process.

    Each child's standard input is a connection that closes when this process ends, which makes the child end too. A
    child's standard error goes to ``rank-<r>.log`` in the run directory. The ranks are processes of the fork server,
    which has a session of its own: an interrupt (Ctrl-C) reaches only the program that uses this package, and when rank
    0 ends, the other ranks are killed, suspended ones included.

    Parameters
    ----------
    directory : Path
        The run directory, which contains ``launch.json``.
    starter : int or None
        The rank of this process; None for the session.
    requests : Requests
        Where to ask for processes.
    on_line : callable, optional
        Called with each line that a child writes to its standard output.
    """

    def __init__(
        self,
        directory: Path,
        starter: int | None,
        requests: Requests,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self._directory = directory
        self._starter = starter
        self._requests = requests
        self._on_line = on_line
        self._children: list[tuple[Child, Waitable]] = []
        self._lock = threading.Lock()

    def start(self, rank: int, on_end: ChildEnd) -> None:
        """Start the process of `rank`; see `engine.Launcher`."""
        try:
            child = self._requests.start(
                str(self._directory), rank, self._starter, has_output=self._on_line is not None
            )
        except OSError as error:
            raise not_started(rank, error) from error
        watcher = Waitable(partial(self._watch, child, rank, on_end), f"child-{rank}")
        try:
            start(watcher)
        except ResourceLimitError as error:
            child.kill()
            child.close()
            raise not_started(rank, error) from error
        with self._lock:
            self._children.append((child, watcher))

    def _watch(self, child: Child, rank: int, on_end: ChildEnd) -> None:
        code = child.wait(self._on_line or (lambda _: None))
        if code != 0:
            on_end(rank, how_ended(self._directory, rank, code), code == EXIT_REPORTED)

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for all children to end, and return whether they have."""
        until = time.monotonic() + timeout_s
        with self._lock:
            watchers = [watcher for _, watcher in self._children]
        return all(watcher.ended.wait(max(0.0, until - time.monotonic())) for watcher in watchers)

    def hang_up(self) -> None:
        """Close the standard input of all children, which ends even those that an abort message does not reach."""
        with self._lock:
            for child, _ in self._children:
                child.hang_up()

    def close(self, grace_s: float) -> None:
        """Wait up to `grace_s` seconds for all children to end, then kill those still running."""
        until = time.monotonic() + grace_s
        with self._lock:
            children, self._children = self._children, []
        for child, watcher in children:
            if not watcher.ended.wait(max(0.0, until - time.monotonic())):
                child.kill()
                watcher.ended.wait(_KILLED_S)
            child.close()


def how_ended(directory: Path, rank: int, code: int | None) -> str:
    """Return how a rank's process ended, from its exit code (None if the fork server is gone) and its log."""
    if code is None:
        return GONE
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    last = ""
    with suppress(OSError):
        lines = (directory / f"rank-{rank:05d}.log").read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"{how}: {last}" if last else how


def not_started(rank: int, error: OSError | ResourceLimitError) -> RunError:
    """Return the error for a rank whose process could not be started; another attempt gets another fork server."""
    why = why_not_started(error) if isinstance(error, OSError) else str(error)
    message = f"rank {rank} could not be started: {why}"
    return RunError(message, rank=rank, operation="start", retryable=isinstance(error, BrokenPipeError))
