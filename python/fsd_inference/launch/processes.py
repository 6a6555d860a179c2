"""A launcher that starts ranks as local processes, which are spawned and never forked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fsd_inference import interpreter, logs
from fsd_inference.engine.launcher import ChildEnd
from fsd_inference.errors import ResourceLimitError, RunError
from fsd_inference.threads import Waitable, start, why_not_started

EXIT_REPORTED = 3
"""Exit code of a rank that failed and has reported its error to the other ranks."""

_NO_BLAS_THREADS = {"OPENBLAS_NUM_THREADS": "1"}
"""Ranks compute with the package's own kernels; OpenBLAS would start a thread per processor in each rank."""

_KILLED_S = 10.0
"""Seconds to wait for a killed process to end."""


class ProcessLauncher:
    """Starts ranks as child processes that do not outlive this process.

    Each child's standard input is a pipe that closes when this process ends, which makes the child end too. A child's
    standard error goes to ``rank-<r>.log`` in the run directory. The session's child, rank 0, leads a new process group
    that all ranks share: an interrupt (Ctrl-C) reaches only the session, and when rank 0 ends, the rest of the group is
    killed, suspended processes included.

    Parameters
    ----------
    directory : Path
        The run directory, which contains ``launch.json``.
    starter : int, optional
        The rank of this process; None for the session.
    on_line : callable, optional
        Called with each line that a child writes to its standard output.
    """

    def __init__(self, directory: Path, starter: int | None, on_line: Callable[[str], None] | None = None) -> None:
        self._directory = directory
        self._starter = starter
        self._on_line = on_line
        self._children: list[tuple[subprocess.Popen[str], Waitable]] = []
        self._lock = threading.Lock()

    def start(self, rank: int, on_end: ChildEnd) -> None:
        """Start the process of `rank`; see `engine.Launcher`."""
        arguments = [str(self._directory), str(rank)]
        if self._starter is not None:
            arguments.append(str(self._starter))
        try:
            with (
                (self._directory / f"rank-{rank:05d}.log").open("w") as log,
                logs.handed_down() as (variables, descriptors),
            ):
                child = subprocess.Popen(  # noqa: S603 - this interpreter, our module, arguments that are numbers and a path
                    interpreter.command("fsd_inference.launch.worker", *arguments),
                    env=interpreter.environment() | _NO_BLAS_THREADS | variables,
                    pass_fds=descriptors,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if self._on_line else subprocess.DEVNULL,
                    stderr=log,
                    text=True,
                    start_new_session=self._starter is None,
                )
        except OSError as error:
            raise _not_started(rank, why_not_started(error)) from error
        watcher = Waitable(partial(self._watch, child, rank, on_end), f"child-{rank}")
        try:
            start(watcher)
        except ResourceLimitError as error:
            self._end(child)
            raise _not_started(rank, str(error)) from error
        with self._lock:
            self._children.append((child, watcher))

    def _watch(self, child: subprocess.Popen[str], rank: int, on_end: ChildEnd) -> None:
        if child.stdout is not None and self._on_line is not None:
            with child.stdout:
                for line in child.stdout:
                    self._on_line(line.rstrip("\n"))
        code = child.wait()
        self._end_group(child)
        if code != 0:
            on_end(rank, self._reason(rank, code), code == EXIT_REPORTED)

    def _end(self, child: subprocess.Popen[str]) -> None:
        """Kill a child that has no watcher thread, and wait for it."""
        child.kill()
        self._end_group(child)
        _hang_up(child)
        if child.stdout is not None:
            child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_KILLED_S)

    def _end_group(self, child: subprocess.Popen[str]) -> None:
        """Kill the remaining processes of the group that the session's child leads."""
        if self._starter is None:
            with contextlib.suppress(OSError):
                os.killpg(child.pid, signal.SIGKILL)

    def _reason(self, rank: int, code: int) -> str:
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        last = ""
        with contextlib.suppress(OSError):
            lines = (self._directory / f"rank-{rank:05d}.log").read_text(errors="replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last}" if last else how

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
                _hang_up(child)

    def close(self, grace_s: float) -> None:
        """Wait up to `grace_s` seconds for all children to end, then kill those still running."""
        until = time.monotonic() + grace_s
        with self._lock:
            children, self._children = self._children, []
        for child, watcher in children:
            if not watcher.ended.wait(max(0.0, until - time.monotonic())):
                child.kill()
                watcher.ended.wait(_KILLED_S)
            _hang_up(child)


def _not_started(rank: int, reason: str) -> RunError:
    return RunError(f"rank {rank} could not be started: {reason}", rank=rank, operation="start")


def _hang_up(child: subprocess.Popen[str]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()
