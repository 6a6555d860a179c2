"""Requests to the fork server: start a process of a rank, kill one, or tell the session something.

The session and its ranks share one end of a pair of datagram sockets, the server has the other. A request is one JSON
datagram, so requests of several processes never mix. One that starts a process carries the server's end of a
connection, which becomes the process's standard input and, if asked for, its standard output. On the connection the
server answers a line ``started PID`` or ``failed ERRNO``, and writes a line ``ended CODE`` after all that the process
has written. In between, the connection of a run's rank 0, which the session reads, also gets a line ``rank-started
RANK`` or ``rank-ended RANK CODE`` for each other process of the run, and what ranks have the server tell the session:
``rank-failed RANK`` once a rank has reported its error, ``rank-pace RANK LAYERS OF SECONDS`` while it computes,
``rank-alive RANK`` every second if it is the only one.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import IO, Self

from fsd_inference import logs

REQUEST_BYTES = 65536
"""Maximum size of a request in bytes."""
RANK_STARTED, RANK_PACE, RANK_ALIVE = "rank-started", "rank-pace", "rank-alive"
RANK_FAILED, RANK_ENDED = "rank-failed", "rank-ended"
"""First words of the lines about single ranks."""

_ANSWER_S = 60.0
"""Seconds to wait for the answer to a request; a server that has just been started imports the package first."""
_LAST_BYTES = 2000
GONE = "the process that starts ranks is gone"


@dataclass(frozen=True, slots=True)
class Start:
    """A request to start the process of a rank.

    Attributes
    ----------
    directory : str
        The run directory; the standard error of the process goes to ``rank-<r>.log`` in it.
    rank : int
    starter : int or None
        The rank that starts it; None for the session.
    process : int
        Process id of the starter.
    has_output : bool
        Whether the standard output of the process goes to the connection; otherwise it is discarded.
    log_level : str or None
        Level at which the process logs to the descriptor that comes with the request; None if it does not log.
    """

    directory: str
    rank: int
    starter: int | None
    process: int
    has_output: bool
    log_level: str | None

    def to_bytes(self) -> bytes:
        """Return the datagram."""
        return json.dumps({"start": asdict(self)}).encode()

    @classmethod
    def from_json(cls, value: dict[str, object]) -> Self:
        """Return the request in a datagram's JSON value."""
        return cls(**value)  # type: ignore[arg-type] # what to_bytes wrote


class Child:
    """A process that the server has started for this one.

    Parameters
    ----------
    connection : socket
        This process's end of the connection.
    requests : Requests
        Where to ask for the process to be killed.
    """

    def __init__(self, connection: socket.socket, requests: Requests) -> None:
        self._connection = connection
        self._requests = requests
        self._lines = connection.makefile("r", errors="replace")
        self._process = 0

    def started(self) -> bool:
        """Wait until the process has been started; return False if the server is gone, raise `OSError` if it failed."""
        self._connection.settimeout(_ANSWER_S)
        word, _, number = self._lines.readline().partition(" ")
        self._connection.settimeout(None)
        if word == "failed":
            raise OSError(int(number), os.strerror(int(number)))
        if word == "started":
            self._process = int(number)
        return word == "started"

    def wait(self, on_line: Callable[[str], None]) -> int | None:
        """Wait for the process to end, and return its exit code, negative for a signal; None if the server is gone.

        Parameters
        ----------
        on_line : callable
            Called with each line that the process writes to its standard output.
        """
        code = None
        with contextlib.suppress(OSError):
            for line in self._lines:
                word, _, number = line.rstrip("\n").partition(" ")
                if word == "ended":
                    code = int(number)
                elif word:
                    on_line(line.rstrip("\n"))
        self._lines.close()
        return code

    def kill(self) -> None:
        """Have the process killed, unless it has ended."""
        self._requests.kill(self._process)

    def hang_up(self) -> None:
        """Close the standard input of the process."""
        with contextlib.suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection, which ends `wait`."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._connection.close()


class Requests:
    """The end of the pair of sockets that sends requests; several processes may use it at a time.

    Parameters
    ----------
    sender : socket
        The socket, closed by the caller.
    errors : file, optional
        The standard error of the server, which says why it is gone.
    """

    def __init__(self, sender: socket.socket, errors: IO[bytes] | None = None) -> None:
        self._sender = sender
        self._errors = errors

    def start(self, directory: str, rank: int, starter: int | None, *, has_output: bool) -> Child:
        """Have the process of a rank started; see `Start`.

        Raises
        ------
        OSError
            The process could not be started; `BrokenPipeError` if the server is gone.
        """
        ours, theirs = socket.socketpair()
        child = Child(ours, self)
        try:
            with theirs, _log() as (level, descriptors):
                request = Start(directory, rank, starter, os.getpid(), has_output, level)
                socket.send_fds(self._sender, [request.to_bytes()], [theirs.fileno(), *descriptors])
            if not child.started():
                raise BrokenPipeError(errno.EPIPE, self._why_gone())
        except BaseException as error:
            child.close()
            if isinstance(error, ConnectionError):
                raise BrokenPipeError(errno.EPIPE, self._why_gone()) from error
            raise
        return child

    def kill(self, process: int) -> None:
        """Have a process killed that the server has started and that still runs."""
        with contextlib.suppress(OSError):  # the server is gone; its processes end when they are hung up
            self._sender.send(json.dumps({"kill": process}).encode())

    def tell_session(self, line: str) -> None:
        """Have the server write a line to the connection of rank 0 of this process's run, unless it is very busy."""
        with contextlib.suppress(OSError):  # as above
            self._sender.send(json.dumps({"tell": line, "process": os.getpid()}).encode(), socket.MSG_DONTWAIT)

    def _why_gone(self) -> str:
        """Return what has become of the server, with the last line that it wrote."""
        if self._errors is None:
            return GONE
        descriptor = self._errors.fileno()
        written = os.pread(descriptor, _LAST_BYTES, max(0, os.fstat(descriptor).st_size - _LAST_BYTES))
        lines = [line.strip() for line in written.decode(errors="replace").split("\n") if line.strip()]
        return f"{GONE}: {lines[-1]}" if lines else GONE


@contextlib.contextmanager
def _log() -> Iterator[tuple[str | None, list[int]]]:
    """Yield the level at which this process logs, and a descriptor of its log; None and nothing if it does not log."""
    with logs.handed_down() as handed_down:
        yield (None, []) if handed_down is None else (handed_down[0], [handed_down[1]])
