"""Temporary folders that are removed with the process that created them, and finalizers for other resources.

A process holds a file lock on each of its folders. The kernel releases the lock when the process dies, even if it is
killed; the next process that creates a temporary folder then removes the leftovers.
"""

from __future__ import annotations

import fcntl
import math
import os
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from fsd_inference.errors import OutputError, SettingError, reason

_PREFIX = "fsd-inference-"
_WRONG = (FileNotFoundError, NotADirectoryError, PermissionError)
_MARKER = ".owned"
"""Marker file that holds the inode of its folder, so that a user's copy of the folder is not removed."""
_LEFTOVERS_S = 1.0
"""Maximum seconds spent on removing leftovers when a folder is created; the next process continues."""

_held: dict[Path, tuple[int, os.stat_result]] = {}
"""This process's folders: the descriptor that holds the lock, and the status of the folder that it was opened on."""


def finalizer(owner: object, release: Callable[..., object], *arguments: object) -> weakref.finalize[..., Any]:
    """Call `release` when `owner` is garbage collected, at the latest when the interpreter exits.

    Forked child processes do not call it.

    Parameters
    ----------
    owner : object
        Object whose lifetime counts; the arguments must not refer to it.
    release : callable
        Function that releases the resource.
    *arguments
        Arguments of `release`.

    Returns
    -------
    weakref.finalize
        Calls `release` early when called; later calls do nothing.
    """
    return weakref.finalize(owner, _release_in, os.getpid(), release, *arguments)


def _release_in(process: int, release: Callable[..., object], *arguments: object) -> None:
    if os.getpid() == process:
        release(*arguments)


class TemporaryFolder:
    """A new temporary folder, removed by `close`, with this object, or when the process ends.

    Parameters
    ----------
    what : str
        Purpose of the folder, in a word; part of its name.

    Attributes
    ----------
    path : Path
        The folder, accessible to this user only. It contains a hidden marker file from the start.

    Raises
    ------
    SettingError
        There is no writable directory for temporary files.
    OutputError
        The directory for temporary files is full, or a limit of this process is reached.
    """

    def __init__(self, what: str) -> None:
        directory = _directory()
        _remove_leftovers(directory)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-", dir=directory))
            self._finalizer = finalizer(self, _remove_own, self.path)
            try:
                _lock_and_mark(self.path)
            except OSError:
                self.close()
                raise
        except OSError as error:
            # A full disk or a limit of this process may be temporary; a wrong directory is an error of the user.
            kind = SettingError if isinstance(error, _WRONG) else OutputError
            raise kind(_unusable(directory, reason(error))) from error

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with its contents."""
        found = self._finalizer.peek()
        if found is not None:
            _, release, arguments, _ = found
            release(*arguments)
            self._finalizer.detach()  # not earlier: if the removal was interrupted, interpreter exit completes it


def _directory() -> str:
    """Return the directory for temporary files; raise SettingError if TMPDIR names one that cannot be used.

    `tempfile` itself would silently fall back to other directories, in the end to the current one.
    """
    named = os.environ.get("TMPDIR")
    if named and not Path(named).is_dir():
        raise SettingError(_unusable(named, "named by TMPDIR, but not a directory"))
    if named and not os.access(named, os.W_OK | os.X_OK):
        raise SettingError(_unusable(named, "named by TMPDIR, but not writable"))
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SettingError(f"{error.strerror}: set TMPDIR to a writable directory") from error


def _unusable(directory: str, reason: str) -> str:
    return (
        f"temporary files cannot be created in {directory} ({reason}): set TMPDIR to a writable directory with enough "
        "space"
    )


def _lock_and_mark(path: Path) -> None:
    """Lock a new folder, then mark it: a marked folder without a lock is one whose owner is dead."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    _held[path] = descriptor, os.fstat(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # the file system has no locks: without a marker, only the owner removes the folder
    (path / _MARKER).write_text(str(_held[path][1].st_ino))


def _remove_own(path: Path) -> None:
    if path not in _held:  # it could not be opened
        with suppress(OSError):
            path.rmdir()
        return
    descriptor, folder = _held[path]
    if _is_open(descriptor, folder):
        _remove(path, descriptor, math.inf)
    _release_lock(path)


def _release_lock(path: Path) -> None:
    descriptor, folder = _held.pop(path)
    if _is_open(descriptor, folder):
        os.close(descriptor)


def _is_open(descriptor: int, folder: os.stat_result) -> bool:
    """Return whether a descriptor still refers to a folder: programs may close descriptors that are not theirs."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder)
    except OSError:
        return False


def _remove(path: Path, descriptor: int, until: float) -> None:
    """Remove a folder that is open and locked, its marker last; stop at `until`, a time of `time.monotonic`."""
    for folder, folders, files, at in os.fwalk(".", topdown=False, dir_fd=descriptor):
        for name in (*files, *folders):
            if time.monotonic() > until:
                return
            if (folder, name) != (".", _MARKER):
                with suppress(OSError):
                    _remove_entry(name, at)
    with suppress(OSError):
        if set(os.listdir(descriptor)) <= {_MARKER}:
            with suppress(FileNotFoundError):
                os.unlink(_MARKER, dir_fd=descriptor)
            path.rmdir()


def _remove_entry(name: str, at: int) -> None:
    try:
        os.unlink(name, dir_fd=at)
    except (IsADirectoryError, PermissionError):  # Linux, and other systems
        os.rmdir(name, dir_fd=at)


def _remove_leftovers(directory: str) -> None:
    """Remove this user's folders whose owners are dead, for at most `_LEFTOVERS_S` seconds."""
    until = time.monotonic() + _LEFTOVERS_S
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() > until:
                return
            if entry.name.startswith(_PREFIX):
                with suppress(OSError, ValueError):
                    _remove_left(Path(entry.path), until)


def _remove_left(path: Path, until: float) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        marker = os.open(_MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        try:
            found = os.fstat(descriptor)
            is_ours = found.st_uid == os.geteuid() and int(os.read(marker, 32)) == found.st_ino
        finally:
            os.close(marker)
        if is_ours:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path, descriptor, until)
    finally:
        os.close(descriptor)


def _forget_inherited() -> None:
    """Release the parent's locks in a forked child, which would otherwise hold them until it ends."""
    for path in list(_held):
        _release_lock(path)


os.register_at_fork(after_in_child=_forget_inherited)
