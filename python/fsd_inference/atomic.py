"""Atomic writes of files and directories: an output appears complete at its path, or not at all.

An output is written to a temporary file or directory next to its destination, then renamed. Symbolic links are resolved
first, so they are kept. A destination that cannot be replaced by a rename (a named pipe, a device) is written once the
output is complete.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from fsd_inference.errors import InputError, OutputError

T = TypeVar("T")
StrPath = str | os.PathLike[str]

_MAX_LINKS = 40  # the limit of Linux
_TIMEOUT_S = 30.0
_PAUSE_S = 0.001
_BLOCK_BYTES = 1 << 20
_WRONG_PATHS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_WRONG_PATH_NUMBERS = {errno.EBUSY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EROFS, errno.EXDEV}

_unfinished: set[Path] = set()
"""Temporary files of open `atomic_file` blocks: a nested `atomic_file` of such a path writes it directly."""


@contextmanager
def atomic_file(path: StrPath) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` when the block ends without an exception.

    The new file keeps the permissions of the file that it replaces. Blocks can be nested: the yielded path may be
    passed to a function that calls `atomic_file` itself.

    Raises
    ------
    InputError
        The path cannot be written to.
    OutputError
        Writing failed because the disk is full, or no process reads the named pipe.
    """
    given = Path(path)
    if given in _unfinished:
        yield given
        return
    place = place_of(given)
    is_stream = place.exists() and not place.is_file()
    with naming(given):
        handle, name = tempfile.mkstemp(prefix=_prefix(place), suffix=".part", dir=None if is_stream else place.parent)
        os.close(handle)
    unfinished = Path(name)
    _unfinished.add(unfinished)
    try:
        with naming(unfinished if is_stream else given):
            yield unfinished
        with naming(given):
            if is_stream:
                _copy_to_stream(unfinished, place, given)
            else:
                unfinished.chmod(_mode(place, 0o666))
                unfinished.replace(place)
    finally:
        _unfinished.discard(unfinished)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_files() -> Iterator[Callable[[StrPath], Path]]:
    """Yield a function like `atomic_file`; its paths are replaced only when the block ends without an exception.

    Write each file before asking for the next path: an error is attributed to the path that was asked for last.
    """
    with ExitStack() as files:
        yield lambda path: files.enter_context(atomic_file(path))


def write_text(path: StrPath, text: str) -> None:
    """Write a text file atomically, in UTF-8; see `atomic_file`."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(
    path: StrPath, *, holds: str, replaceable: Callable[[Path], bool], parents: bool = False
) -> Iterator[Path]:
    """Yield a new temporary directory to fill; it replaces `path` when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        The destination. An existing directory is replaced if it is empty or replaceable.
    holds : str
        Name of the contents that a replaceable directory has, for the message about other directories.
    replaceable : callable
        Returns whether a directory has those contents and nothing else.
    parents : bool, optional
        Whether to create missing parent directories.

    Raises
    ------
    InputError
        The path exists and must not be replaced, or cannot be written to.
    OutputError
        Writing failed because the disk is full.
    """
    with naming(path), _created(_behind_links(Path(path)).parent) if parents else nullcontext():
        place = check_replaceable(path, holds=holds, replaceable=replaceable)
        unfinished = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=".part", dir=place.parent))
        try:
            yield unfinished
            for file in unfinished.iterdir():
                file.chmod(_without_umask(0o666))  # libraries may have created it for this user only
            unfinished.chmod(_mode(place, 0o777))
            _replace_directory(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def check_replaceable(path: StrPath, *, holds: str, replaceable: Callable[[Path], bool]) -> Path:
    """Return the resolved destination of a directory; raise InputError unless `atomic_directory` may replace it."""
    place = place_of(path, directory=True)
    with naming(path):
        if place.exists() and any(place.iterdir()) and not replaceable(place):
            raise InputError(f"{path} already exists and holds no {holds}: remove it, or choose another name")
    return place


@contextmanager
def filled_directory(path: StrPath) -> Iterator[Path]:
    """Yield the resolved directory of `path` to add files to; created if missing, and removed again if the block fails.

    Raises
    ------
    InputError
        The path cannot be written to.
    OutputError
        Writing failed because the disk is full.
    """
    with naming(path), _created(_behind_links(Path(path)).parent):
        place = place_of(path, directory=True, filled=True)
        with _created(place):
            yield place


def place_of(path: StrPath, *, directory: bool = False, filled: bool = False) -> Path:
    """Return the destination of an output: `path` with all symbolic links resolved.

    Parameters
    ----------
    path : path-like
        The path as the user gave it.
    directory : bool, optional
        Whether the output is a directory.
    filled : bool, optional
        Whether files are added to an existing directory, instead of replacing it.

    Raises
    ------
    InputError
        The destination cannot be written to, or is below /dev or /proc.
    """
    with naming(path):
        place = _behind_links(Path(path))
        parent = place.parent
        if not parent.is_dir():
            raise InputError(f"{path} cannot be written: {parent} is not a directory; make it first")
        mode = place.stat().st_mode if place.exists() else None
        is_directory = mode is not None and stat.S_ISDIR(mode)
        is_stream = mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))
        changed = {place} if is_stream or (filled and is_directory) else {parent}
        if is_directory and directory:
            changed.add(place)  # its files are removed
        for folder in changed:
            if _is_special(folder):
                raise InputError(_special_message(path, folder))
        if directory and mode is not None and not is_directory:
            raise InputError(f"{path} is a file, but the output is a directory; choose another name")
        if is_directory and not directory:
            raise InputError(f"{path} is a directory, but the output is a file; choose another name")
        if mode is not None and not (is_directory or is_stream or stat.S_ISREG(mode)):
            raise InputError(f"{path} is a socket or a disk, but the output is a file; choose another name")
        for folder in changed:
            if not os.access(folder, os.W_OK if is_stream else os.W_OK | os.X_OK):
                raise InputError(f"{path} cannot be written: you may not write to {folder}")
    return place


@contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Convert each OSError of the block to an error that names `path`, the output being written.

    Raises
    ------
    InputError
        The path is wrong; see `is_wrong_path`.
    OutputError
        The path is right, but the disk is full or broken.
    """
    try:
        yield
    except OSError as error:
        kind = InputError if is_wrong_path(error) else OutputError
        raise kind(f"{path} cannot be written: {error.strerror or error}") from error


def is_wrong_path(error: OSError) -> bool:
    """Return whether the path is wrong; other errors, such as a full disk or a lost connection, may be temporary."""
    return isinstance(error, _WRONG_PATHS) or error.errno in _WRONG_PATH_NUMBERS


def _behind_links(path: Path) -> Path:
    """Return `path` with symbolic links resolved step by step: the system resolves those in /proc to invalid names."""
    rest = list(reversed(path.absolute().parts[1:]))
    place, links = Path("/"), 0
    while rest:
        name = rest.pop()
        if name == "..":
            if not place.is_dir():
                raise InputError(f"{path} cannot be written: {place} is not a directory; make it first")
            place = place.parent
            continue
        place /= name
        if _is_special(place) and place.parent != Path("/"):
            raise InputError(_special_message(path, place))
        if place.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise InputError(f"{path} cannot be written: its symbolic links form a loop; choose another name")
            target = place.readlink()
            rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            place = Path("/") if target.is_absolute() else place.parent
    return place


def _is_special(place: Path) -> bool:
    """Return whether a path is in /dev or /proc, except /dev/shm (shared memory), which holds ordinary files."""
    parts = place.parts[1:]
    return parts[:1] in {("dev",), ("proc",)} and parts[:2] != ("dev", "shm")


def _special_message(path: StrPath, place: Path) -> str:
    leads = "" if Path(path) == place else f", which leads to {place}"
    return f"{path}{leads}, cannot be written: /dev and /proc hold no ordinary files; choose another name"


@contextmanager
def _created(folder: Path) -> Iterator[None]:
    """Create a directory and its missing parents for a block; remove those again if the block fails."""
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for one in new:
            with suppress(OSError):
                one.rmdir()
        raise


def _prefix(place: Path) -> str:
    return f".{place.name[:40]}."  # shortened: the name may be as long as the file system allows


def _mode(place: Path, usual: int) -> int:
    """Return the permissions of a new output: those of what it replaces, or `usual` without the bits of the umask."""
    with suppress(FileNotFoundError):
        return place.stat().st_mode & 0o777
    return _without_umask(usual)


def _without_umask(mode: int) -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mode & ~mask


def _replace_directory(new: Path, place: Path) -> None:
    if not place.exists():
        new.rename(place)
        return
    # A rename cannot replace a directory that is not empty, so the old one is renamed out of the way first.
    aside = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=".old", dir=place.parent))
    place.rename(aside)
    try:
        new.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    shutil.rmtree(aside)


def _copy_to_stream(source: Path, stream: Path, given: Path) -> None:
    """Copy a file into a named pipe or a device, waiting up to `_TIMEOUT_S` for a reader before each write."""
    wait = f"{_TIMEOUT_S:g} s"
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    target = _retry_until_ready(
        partial(os.open, stream, flags), f"{given} cannot be written: no process read it within {wait}"
    )
    try:
        with source.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                rest = memoryview(block)
                while rest:
                    problem = f"{given} cannot be written completely: its reader read nothing for {wait}"
                    rest = rest[_retry_until_ready(partial(os.write, target, rest), problem) :]
    finally:
        os.close(target)


def _retry_until_ready(attempt: Callable[[], T], problem: str) -> T:
    """Return the result of `attempt`; retry until a timeout while a pipe has no reader (ENXIO) or is full (EAGAIN)."""
    end = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno not in {errno.ENXIO, errno.EAGAIN}:
                raise
            if time.monotonic() > end:
                raise OutputError(problem) from error
        time.sleep(_PAUSE_S)
