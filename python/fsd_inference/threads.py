"""Threads that can be waited for safely under interrupts, and clear errors if a thread cannot be started.

Threads and pools work in the context (`contextvars`) of whoever starts them or submits to them, with its deadline.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from fsd_inference.errors import ResourceLimitError, reason

P = ParamSpec("P")
T = TypeVar("T")

_NO_THREAD = "can't start new thread"  # the only sign of the cause in CPython's RuntimeError
_LIMIT = "the limit on processes and threads is reached (ulimit -u, or the container's pids limit)"


class Waitable(threading.Thread):
    """A daemon thread that sets an event when it ends.

    In CPython 3.10 to 3.12 an interrupted `join` marks a running thread as ended; waiting for the event is safe.

    Parameters
    ----------
    work : callable
        Function that the thread runs.
    name : str
        Name of the thread.

    Attributes
    ----------
    ended : threading.Event
        Set once `work` has returned or raised.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.ended = threading.Event()

    def run(self) -> None:
        """Run `work`, then set `ended`."""
        try:
            super().run()
        finally:
            self.ended.set()


class ThreadPool(ThreadPoolExecutor):
    """A `ThreadPoolExecutor` whose `submit` raises `ResourceLimitError` if no thread can be started."""

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule a call; see `concurrent.futures.Executor.submit`."""
        context = copy_context()
        try:
            return super().submit(lambda: context.run(work, *args, **kwargs))
        except RuntimeError as error:
            raise _start_error(error) from error


def start(thread: threading.Thread) -> None:
    """Start a thread; raise `ResourceLimitError` if the machine refuses it."""
    context, run = copy_context(), thread.run

    def run_in_context() -> None:
        del thread.run  # a cycle that would keep what the thread works on
        context.run(run)

    thread.run = run_in_context  # type: ignore[method-assign]
    try:
        thread.start()
    except RuntimeError as error:
        raise _start_error(error) from error


def why_not_started(error: OSError) -> str:
    """Return the reason why a process could not be started."""
    return _LIMIT if error.errno == errno.EAGAIN else reason(error)


def _start_error(error: RuntimeError) -> Exception:
    """Return the error to raise for a thread that could not be started."""
    if _NO_THREAD not in str(error):
        return error
    return ResourceLimitError(f"no thread can be started: {_LIMIT}")
