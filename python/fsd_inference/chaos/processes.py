"""Processes of a run, found through /proc: its ranks, all that carry a token in their environment, what they use."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsd_inference.errors import SettingError

_PROC = Path("/proc")
_RANK = "fsd-rank-"
_FORK_SERVER = b"fsd_inference.launch.fork_server"
_PIDFD_GETFD = 438
"""Number of the system call, the same on all architectures that Python supports on Linux but Alpha."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a process uses: resident memory in bytes, open descriptors, threads."""

    memory: int
    descriptors: int
    threads: int

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.memory + other.memory, self.descriptors + other.descriptors, self.threads + other.threads)


def check_proc() -> None:
    """Raise `SettingError` where processes cannot be found."""
    if not (_PROC / "self" / "environ").exists():
        raise SettingError("faults are injected into processes that are found in /proc: this needs Linux")


def ancestors(pid: int) -> Iterator[int]:
    """Yield the process ids of the parent of a process, its parent, and so on."""
    while pid > 1:
        pid = int((_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[1])
        yield pid


def state_of(pid: int) -> str:
    """Return the state letter of a process, such as R, T (stopped) or Z (zombie); empty if it does not exist."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def runs(pid: int) -> bool:
    """Return whether a process is running; a zombie, which init may reap late, is not."""
    return state_of(pid) not in {"", "Z"}


def ranks_of(session_pid: int) -> dict[int, int]:
    """Return the process id of each rank among the descendants of a process, by rank."""
    found = {}
    for pid in _pids():
        with suppress(OSError):  # the process has ended
            name = (_PROC / str(pid) / "comm").read_text().strip()
            if name.startswith(_RANK) and session_pid in ancestors(pid):
                found[int(name.removeprefix(_RANK))] = pid
    return found


def fork_server_of(session_pid: int) -> int | None:
    """Return the process id of the fork server of a session; None if it has none yet."""
    for pid in _pids():
        with suppress(OSError):
            is_server = _FORK_SERVER in (_PROC / str(pid) / "cmdline").read_bytes()
            if is_server and next(ancestors(pid)) == session_pid:
                return pid
    return None


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment variables with which a process was started."""
    entries = (_PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def processes_of(function: str) -> set[int]:
    """Return the ids of the emulator's processes for a Lambda function, given the end of its name."""
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if environment_of(pid).get("AWS_LAMBDA_FUNCTION_NAME", "").endswith(function) and runs(pid):
                found.add(pid)
    return found


def with_variable(name: str, value: str) -> set[int]:
    """Return the running processes that were started with an environment variable of some value."""
    found = set()
    for pid in _pids():
        with suppress(OSError):
            if environment_of(pid).get(name) == value and runs(pid):
                found.add(pid)
    return found


def resources_of(pid: int) -> Resources | None:
    """Return what a process uses; None if it has ended."""
    folder = _PROC / str(pid)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        return Resources(
            pages * resource.getpagesize(), len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))
        )
    except OSError:
        return None


def refuse_memory(pid: int) -> None:
    """Let a process have no more memory than it has now."""
    pages = int((_PROC / str(pid) / "statm").read_text().split()[0])
    _limit(pid, resource.RLIMIT_AS, pages * resource.getpagesize())


def refuse_disk(pid: int, size: int) -> None:
    """Let a process write no file of more than `size` bytes, as if the disk were full."""
    _limit(pid, resource.RLIMIT_FSIZE, size)


def cut_connections(pid: int) -> int:
    """Shut down the connections of a process to others over Unix sockets, and return how many there were.

    Raises
    ------
    OSError
        The system does not allow it.
    """
    cut = 0
    process = os.pidfd_open(pid)
    try:
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(FileNotFoundError):
                if int(entry.name) > 2 and entry.readlink().name.startswith("socket:"):
                    cut += _cut(process, int(entry.name))
    finally:
        os.close(process)
    return cut


def _cut(process: int, descriptor: int) -> int:
    copy = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, descriptor, 0)
    if copy < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(fileno=copy) as connection, suppress(OSError):
        named = bool(connection.getpeername() or connection.getsockname())
        if connection.type == socket.SOCK_STREAM and named:
            connection.shutdown(socket.SHUT_RDWR)
            return 1
    return 0


def _limit(pid: int, kind: int, value: int) -> None:
    _, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, hard))


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
