"""The fork server: a process that has imported what ranks need, and forks itself for each of them.

It is started as ``python -m fsd_inference.launch.fork_server RECEIVER SENDER MODULE ...``, with the descriptors of the
two sockets for requests (`launch.requests`) and the modules to import beforehand. It has one thread and opens no files
and connections of its own, so that a fork is as good as a new interpreter. It is the parent of all ranks, reports how
they ended, kills the rest of a run when its rank 0 has ended, and kills all ranks and ends itself when its standard
input closes, that is when the session ends.

Where forks are not safe, each fork runs a new interpreter instead: on systems other than Linux, whose libraries may
start threads of their own; if a module that the user's environment loads has started a thread; or if FSD_FORK is "0".
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from fsd_inference import interpreter, logs
from fsd_inference.fields import load_json
from fsd_inference.launch import worker
from fsd_inference.launch.requests import RANK_ENDED, RANK_STARTED, REQUEST_BYTES, Start

_TASKS = Path("/proc/self/task")
"""Folder with an entry for each thread of this process, on Linux."""
_DESCRIPTORS = 2
"""Maximum number of descriptors that come with a request: the connection, and the log."""


@dataclass(frozen=True, slots=True)
class _Rank:
    """A running process of a rank: its number, its connection, and the process of the run's rank 0."""

    number: int
    connection: socket.socket
    root: int


class ForkServer:
    """The server's state: its sockets and the ranks that run.

    Parameters
    ----------
    receiver : socket
        The socket on which requests arrive.
    sender : socket
        The other end, which ranks use to start their children.
    """

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self._receiver = receiver
        self._sender = sender
        self._ranks: dict[int, _Rank] = {}
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector = selectors.DefaultSelector()
        for readable in (sys.stdin.fileno(), self._receiver, self._wake_in):
            self._selector.register(readable, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # replaces the default, which wakes nobody
        signal.set_wakeup_fd(self._wake_out.fileno(), warn_on_full_buffer=False)
        _check_room()

    def serve(self) -> None:
        """Answer requests until standard input closes; then kill all ranks."""
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._wake_in in ready:
                with suppress(BlockingIOError):
                    self._wake_in.recv(4096)
                self._reap()
            if sys.stdin.fileno() in ready:
                break
            if self._receiver in ready:
                self._take()
        for process in self._ranks:
            os.kill(process, signal.SIGKILL)

    def _take(self) -> None:
        """Receive a request and carry it out."""
        message, descriptors, _, _ = socket.recv_fds(self._receiver, REQUEST_BYTES, _DESCRIPTORS)
        request = load_json(message)
        if "kill" in request:
            if request["kill"] in self._ranks:
                os.kill(request["kill"], signal.SIGKILL)
            return
        if "tell" in request:
            if request["process"] in self._ranks:
                self._tell_session(self._ranks[request["process"]].root, request["tell"])
            return
        connection = socket.socket(fileno=descriptors[0])
        try:
            self._start(Start.from_json(request["start"]), connection, descriptors[1:])
        except OSError as error:
            _write(connection, f"failed {error.errno}\n")
            connection.close()
        for descriptor in descriptors[1:]:
            os.close(descriptor)

    def _start(self, request: Start, connection: socket.socket, log: list[int]) -> None:
        """Fork, and answer; in the child run the rank and do not return."""
        _check_room()  # for the next request, which could otherwise not be answered
        if request.starter is not None and request.process not in self._ranks:
            raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))  # its run has been ended
        with (Path(request.directory) / f"rank-{request.rank:05d}.log").open("w") as errors:
            safe = _is_safe()  # before the fork, which has one thread in any case
            process = os.fork()
            if process == 0:
                self._become(request, connection.fileno(), errors.fileno(), log, safe=safe)
        root = process if request.starter is None else self._ranks[request.process].root
        self._ranks[process] = _Rank(request.rank, connection, root)
        _write(connection, f"started {process}\n")
        if root != process:
            self._tell_session(root, f"{RANK_STARTED} {request.rank}")

    def _tell_session(self, root: int, line: str) -> None:
        """Write a line to the connection of a run's rank 0, which the session reads."""
        if root in self._ranks:
            _write(self._ranks[root].connection, f"\n{line}\n")

    def _become(self, request: Start, connection: int, errors: int, log: list[int], *, safe: bool) -> None:
        """Make this process, just forked, that of a rank; it ends here."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(connection, 0)
            if request.has_output:
                os.dup2(connection, 1)
            os.dup2(errors, 2)
            self._forget()
            os.close(connection)
            os.close(errors)
            if request.log_level is not None and log:
                logs.take_up(request.log_level, log[0])
            arguments = [request.directory, str(request.rank), str(self._sender.fileno())]
            if request.starter is not None:
                arguments.append(str(request.starter))
            if not safe:
                _run_anew(arguments, (self._sender.fileno(), *log))
            code = worker.main(arguments)
        except BaseException:  # noqa: BLE001 - nothing of this process may return to the server's loop
            traceback.print_exc()
        finally:
            worker.end(code)

    def _forget(self) -> None:
        """Close the files of the server in a fork of it."""
        self._selector.close()
        for inherited in (self._receiver, self._wake_in, self._wake_out):
            inherited.close()
        for rank in self._ranks.values():
            rank.connection.close()

    def _reap(self) -> None:
        """Report the processes that have ended, and kill those of their runs."""
        while self._ranks:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            ended = self._ranks.pop(process, None)
            if ended is None:
                continue
            for other, rank in self._ranks.items():
                if rank.root == process:
                    os.kill(other, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(status)
            _write(ended.connection, f"\nended {code}\n")
            ended.connection.close()
            self._tell_session(ended.root, f"{RANK_ENDED} {ended.number} {code}")


def _run_anew(arguments: list[str], descriptors: Iterable[int]) -> Never:
    """Replace this process by a new interpreter that runs a rank and inherits some descriptors."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    command = interpreter.command(worker.__name__, *arguments)
    os.execv(command[0], command)  # noqa: S606 - this interpreter, our module


def _is_safe() -> bool:
    """Return whether a fork of this process may run a rank."""
    threads = len(list(_TASKS.iterdir())) if _TASKS.is_dir() else threading.active_count()
    return sys.platform == "linux" and os.environ.get("FSD_FORK") != "0" and threads == 1


def _check_room() -> None:
    """Raise `OSError` unless as many files can be opened as a request needs."""
    with ExitStack() as opened:
        for _ in range(_DESCRIPTORS + 1):
            opened.callback(os.close, os.dup(1))


def _write(connection: socket.socket, line: str) -> None:
    with suppress(OSError):  # the starter is gone, or has given up
        connection.sendall(line.encode(), socket.MSG_DONTWAIT)


def main(receiver: int, sender: int, modules: Iterable[str]) -> None:
    """Import modules, then serve on the sockets with the given descriptors."""
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # ranks share these objects' pages as long as no collection writes to them
    ForkServer(socket.socket(fileno=receiver), socket.socket(fileno=sender)).serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
