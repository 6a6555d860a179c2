"""Threads: those that a caller who may be interrupted can wait for, and what is said where none can be started."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from fsd_inference.errors import ResourceLimitError, reason

P = ParamSpec("P")
T = TypeVar("T")

_NO_THREAD = "can't start new thread"  # all that CPython says of it
_LIMIT = "the limit on processes and threads is reached (ulimit -u, or the container's pids limit)"


class Waitable(threading.Thread):
    """A daemon thread whose end an event tells.

    An interrupted `join` takes a thread that still runs for ended (CPython 3.10 to 3.12); a wait for an event does not.

    Parameters
    ----------
    work : callable
        What it does.
    name : str

    Attributes
    ----------
    ended : threading.Event
        Set once `work` has returned or raised.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.ended = threading.Event()

    def run(self) -> None:
        """Do the work, and tell."""
        try:
            super().run()
        finally:
            self.ended.set()


class ThreadPool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose `submit` raises `ResourceLimitError` where no thread can be started."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        try:
            return super().submit(work, *args, **kwargs)
        except RuntimeError as error:
            raise _explained(error) from error


def start(thread: threading.Thread) -> None:
    """Start a thread; `ResourceLimitError` if this machine refuses it."""
    try:
        thread.start()
    except RuntimeError as error:
        raise _explained(error) from error


def why_not_started(error: OSError) -> str:
    """Return why a process could not be started."""
    return _LIMIT if error.errno == errno.EAGAIN else reason(error)


def _explained(error: RuntimeError) -> Exception:
    """Return what to raise for an error of starting a thread."""
    if _NO_THREAD not in str(error):
        return error
    return ResourceLimitError(f"no thread can be started: {_LIMIT}")
