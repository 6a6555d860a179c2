"""The session's fork server: started before the first run, and used by all runs until the session is closed."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from fsd_inference import interpreter
from fsd_inference.launch.processes import not_started
from fsd_inference.launch.requests import Requests
from fsd_inference.temporary import finalizer

AWS_MODULES = ("fsd_inference.aws.backends", "fsd_inference.aws.clients", "fsd_inference.aws.stack")
"""Modules that only ranks on a stack import."""

_MODULE = "fsd_inference.launch.fork_server"
_SETTINGS = {
    # Ranks compute with the package's own kernels; OpenBLAS would start a thread per processor before the fork.
    "OPENBLAS_NUM_THREADS": "1",
    # For glibc: with an arena a thread, memory that one thread frees does not serve the others.
    "MALLOC_ARENA_MAX": "1",
}
_END_S = 10.0
"""Seconds to wait for a server to end."""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What a process takes over from the one that starts it."""

    command: list[str]
    variables: dict[str, str]
    folder: str

    @classmethod
    def here(cls) -> _Surroundings:
        """Return those of a process that this one would start now."""
        try:
            folder = os.getcwd()  # noqa: PTH109 - compared with strings
        except OSError:  # the current directory was removed
            folder = ""
        return cls(interpreter.command(_MODULE), interpreter.environment() | _SETTINGS, folder)


@dataclass(frozen=True, slots=True)
class _Running:
    """A running server, its standard error, and the socket for requests to it."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    sender: socket.socket
    surroundings: _Surroundings
    release: weakref.finalize[..., Any]


class Server:
    """The fork server of a session; it ends with the session, even if that is killed.

    The server has the environment variables, the current directory and the search path of this process. When these
    have changed since it was started, or it has ended, the next run starts another.

    Parameters
    ----------
    modules : sequence of str, optional
        Modules that the server imports besides those that all ranks need.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = modules
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def warm_up(self) -> None:
        """Start the server, so that it imports while this process goes on; an error will be raised by `requests`."""
        with suppress(OSError):
            self._current()

    def requests(self) -> Requests:
        """Return where to ask for processes; raise `RunError` if the server cannot be started."""
        try:
            running = self._current()
        except OSError as error:
            raise not_started(0, error) from error
        return Requests(running.sender, running.errors)

    def close(self) -> None:
        """End the server, and with it the ranks that still run."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.release()

    def _current(self) -> _Running:
        surroundings = _Surroundings.here()
        with self._lock:
            running = self._running
            if running is None or running.process.poll() is not None or running.surroundings != surroundings:
                if running is not None:
                    running.release()
                self._running = None  # in case that no other can be started
                self._running = running = self._start(surroundings)
            return running

    def _start(self, surroundings: _Surroundings) -> _Running:
        receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with receiver:
            errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the server runs
            try:
                descriptors = receiver.fileno(), sender.fileno()
                process = subprocess.Popen(  # noqa: S603 - this interpreter, our module, arguments that are numbers and names
                    [*surroundings.command, *map(str, descriptors), *self._modules],
                    env=surroundings.variables,
                    pass_fds=descriptors,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
            except BaseException:
                errors.close()
                sender.close()
                raise
        release = finalizer(self, _end, process, errors, sender)
        return _Running(process, errors, sender, surroundings, release)


def _end(process: subprocess.Popen[bytes], errors: IO[bytes], sender: socket.socket) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    errors.close()
    sender.close()
