"""Temporary folders that go with the process that made them, and what else must not outlast its owner.

A process holds a lock on each of its folders, which the kernel releases when it dies, however that comes about; what it
then could not remove, the next process that makes a folder does.
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
"""A file with the inode of the folder that it was made in: a copy that somebody keeps is not taken for ours."""
_LEFTOVERS_S = 1.0
"""How long leftovers may hold up whoever makes a folder; what remains is for the next one."""

_held: dict[Path, tuple[int, os.stat_result]] = {}
"""This process's folders: the descriptor that holds the lock, and of what."""


def finalizer(owner: object, release: Callable[..., object], *arguments: object) -> weakref.finalize[..., Any]:
    """Have something released once nobody refers to its owner, at the latest when the interpreter ends.

    A process that was forked off this one leaves it alone.

    Parameters
    ----------
    owner : object
        Must not be among the arguments, nor be referred to by them.
    release : callable
    *arguments
        What it is called with.

    Returns
    -------
    weakref.finalize
        Releases it when called, the first time.
    """
    return weakref.finalize(owner, _release_in, os.getpid(), release, *arguments)


def _release_in(process: int, release: Callable[..., object], *arguments: object) -> None:
    if os.getpid() == process:
        release(*arguments)


class TemporaryFolder:
    """A new folder that is this process's own: gone with `close`, with this object, or with the process.

    Parameters
    ----------
    what : str
        What it is for, in a word; a part of its name.

    Attributes
    ----------
    path : Path
        Open to this user alone. It is not quite empty: it holds what marks it as such a folder.

    Raises
    ------
    SettingError
        There is no directory for temporary files that can be written.
    OutputError
        There is no room in it.
    """

    def __init__(self, what: str) -> None:
        directory = _directory()
        _remove_leftovers(directory)
        try:
            self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{what}-", dir=directory))
            self._finalizer = finalizer(self, _remove_own, self.path)
            try:
                _own(self.path)
            except OSError:
                self.close()
                raise
        except OSError as error:
            # A full disk, or a limit of this process, may be mended; a wrong directory stays wrong.
            kind = SettingError if isinstance(error, _WRONG) else OutputError
            raise kind(_unusable(directory, reason(error))) from error

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        found = self._finalizer.peek()
        if found is not None:
            _, release, arguments, _ = found
            release(*arguments)
            self._finalizer.detach()  # only now: if that was interrupted, the interpreter's end completes it


def _directory() -> str:
    """Return where temporary files go, as `tempfile` finds it.

    But `tempfile` quietly goes elsewhere, at last to the current directory, if what TMPDIR names cannot be used.
    """
    named = os.environ.get("TMPDIR")
    if named and not Path(named).is_dir():
        raise SettingError(_unusable(named, "TMPDIR names it, and it is not a directory"))
    if named and not os.access(named, os.W_OK | os.X_OK):
        raise SettingError(_unusable(named, "TMPDIR names it, and it cannot be written"))
    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise SettingError(f"{error.strerror}: set TMPDIR to one that can be written") from error


def _unusable(directory: str, reason: str) -> str:
    return (
        f"no temporary files can be made in {directory} ({reason}): set TMPDIR to a directory that can be written and "
        "has room"
    )


def _own(path: Path) -> None:
    """Lock a new folder, then mark it: who finds a marked folder that is not locked knows that its owner is dead."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    _held[path] = descriptor, os.fstat(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # this file system has no locks: without a marker nobody removes the folder but its owner
    (path / _MARKER).write_text(str(_held[path][1].st_ino))


def _remove_own(path: Path) -> None:
    if path not in _held:  # it could not even be opened
        with suppress(OSError):
            path.rmdir()
        return
    descriptor, folder = _held[path]
    if _is_open(descriptor, folder):
        _remove(path, descriptor, math.inf)
    _let_go(path)


def _let_go(path: Path) -> None:
    descriptor, folder = _held.pop(path)
    if _is_open(descriptor, folder):
        os.close(descriptor)


def _is_open(descriptor: int, folder: os.stat_result) -> bool:
    """Whether a descriptor is still that of a folder: programs may close what they have not opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder)
    except OSError:
        return False


def _remove(path: Path, descriptor: int, until: float) -> None:
    """Remove a folder that is open and locked, its marker last; stop when `time.monotonic` passes `until`."""
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
    """Remove this user's folders whose owners are dead, as far as that can be done at once."""
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
    """Let go of the parent's locks, which would last as long as this process."""
    for path in list(_held):
        _let_go(path)


os.register_at_fork(after_in_child=_forget_inherited)
