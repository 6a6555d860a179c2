"""Where outputs may be written, and how they appear there whole or not at all.

An output is written beside its place and renamed into it. The place is what all symbolic links lead to, so links stay.
What cannot be renamed over (a named pipe, a device) is written when the output is complete.
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

_MOST_LINKS = 40  # as Linux follows
_PATIENCE_S = 30.0
_PAUSE_S = 0.001
_BLOCK_BYTES = 1 << 20
_WRONG_PATHS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
_WRONG_PATH_NUMBERS = {errno.EBUSY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY, errno.EROFS, errno.EXDEV}

_unfinished: set[Path] = set()
"""Files that blocks of `atomic_file` have given out: inside, they are written as they are."""


@contextmanager
def atomic_file(path: StrPath) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block ends without an exception.

    A file that was there leaves its permissions to the new one. Blocks can be nested: the path that one yields may be
    given to a function that has a block of its own.

    Raises
    ------
    InputError
        If nothing can be written there.
    OutputError
        If writing failed for want of space, or nobody reads the named pipe.
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
                _pour(unfinished, place, given)
            else:
                unfinished.chmod(_mode(place, 0o666))
                unfinished.replace(place)
    finally:
        _unfinished.discard(unfinished)
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


@contextmanager
def atomic_files() -> Iterator[Callable[[StrPath], Path]]:
    """Yield a function like `atomic_file`; no path takes its place before the block ends without an exception.

    Each path is written before the next is asked for: what fails is said of the last one.
    """
    with ExitStack() as files:
        yield lambda path: files.enter_context(atomic_file(path))


def write_text(path: StrPath, text: str) -> None:
    """Write a text file as `atomic_file` does, in UTF-8."""
    with atomic_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(
    path: StrPath, *, holds: str, replaceable: Callable[[Path], bool], parents: bool = False
) -> Iterator[Path]:
    """Yield a new directory to fill; it takes the place of `path` when the block ends without an exception.

    Parameters
    ----------
    path : path-like
        A directory that is there already is replaced if it is empty or replaceable.
    holds : str
        What is in directories that may be replaced, for the message about others.
    replaceable : callable
        Whether a directory holds that and nothing else.
    parents : bool, optional
        The directory's parents are made if need be.

    Raises
    ------
    InputError
        If something else is in its place, or nothing can be written there.
    OutputError
        If writing failed for want of space.
    """
    with naming(path), _made(_behind_links(Path(path)).parent) if parents else nullcontext():
        place = check_replaceable(path, holds=holds, replaceable=replaceable)
        unfinished = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=".part", dir=place.parent))
        try:
            yield unfinished
            unfinished.chmod(_mode(place, 0o777))
            _replace_directory(unfinished, place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def check_replaceable(path: StrPath, *, holds: str, replaceable: Callable[[Path], bool]) -> Path:
    """Return the place behind `path`; raise InputError as `atomic_directory` does before it begins."""
    place = place_of(path, directory=True)
    with naming(path):
        if place.exists() and any(place.iterdir()) and not replaceable(place):
            raise InputError(
                f"{path} is there already and is something else: it holds no {holds}; remove it or choose another name"
            )
    return place


@contextmanager
def filled_directory(path: StrPath) -> Iterator[Path]:
    """Yield the directory behind `path` to put files into; it is made if need be, and not left when the block fails.

    Raises
    ------
    InputError
        If nothing can be written there.
    OutputError
        If writing failed for want of space.
    """
    with naming(path), _made(_behind_links(Path(path)).parent):
        place = place_of(path, directory=True, filled=True)
        with _made(place):
            yield place


def place_of(path: StrPath, *, directory: bool = False, filled: bool = False) -> Path:
    """Return where an output that is to be written to `path` goes: the place that all symbolic links lead to.

    Parameters
    ----------
    path : path-like
        As it was given.
    directory : bool, optional
        The output is a directory.
    filled : bool, optional
        One that is there already is not replaced: files are put into it.

    Raises
    ------
    InputError
        If nothing can be written there, or nothing is to be: below /dev and /proc are no files.
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
            changed.add(place)  # whose files are removed
        for folder in changed:
            if _is_kept(folder):
                raise InputError(_kept(path, folder))
        if directory and mode is not None and not is_directory:
            raise InputError(f"{path} is a file, but a directory is to be written there; choose another name")
        if is_directory and not directory:
            raise InputError(f"{path} is a directory, but a file is to be written there; choose another name")
        if mode is not None and not (is_directory or is_stream or stat.S_ISREG(mode)):
            raise InputError(f"{path} is a socket or a disk, but a file is to be written there; choose another name")
        for folder in changed:
            if not os.access(folder, os.W_OK if is_stream else os.W_OK | os.X_OK):
                raise InputError(f"{path} cannot be written: you may not write to {folder}")
    return place


@contextmanager
def naming(path: StrPath) -> Iterator[None]:
    """Let what the operating system refuses in the block be said of `path`, which is being written.

    Raises
    ------
    InputError
        The path is wrong.
    OutputError
        It is not: the disk is full, or broken.
    """
    try:
        yield
    except OSError as error:
        kind = InputError if is_wrong_path(error) else OutputError
        raise kind(f"{path} cannot be written: {error.strerror or error}") from error


def is_wrong_path(error: OSError) -> bool:
    """Whether another path would do; a full disk or a lost connection may be mended."""
    return isinstance(error, _WRONG_PATHS) or error.errno in _WRONG_PATH_NUMBERS


def _behind_links(path: Path) -> Path:
    """Follow symbolic links by hand: what the system makes of those below /proc is no name of a file."""
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
        if _is_kept(place) and place.parent != Path("/"):
            raise InputError(_kept(path, place))
        if place.is_symlink():
            links += 1
            if links > _MOST_LINKS:
                raise InputError(f"{path} cannot be written: its symbolic links lead round; choose another name")
            target = place.readlink()
            rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            place = Path("/") if target.is_absolute() else place.parent
    return place


def _is_kept(place: Path) -> bool:
    """Whether the system keeps a place for devices and processes; shared memory holds ordinary files."""
    parts = place.parts[1:]
    return parts[:1] in {("dev",), ("proc",)} and parts[:2] != ("dev", "shm")


def _kept(path: StrPath, place: Path) -> str:
    leads = "" if Path(path) == place else f", which leads to {place}"
    return f"{path}{leads}, cannot be written: below /dev and /proc are no files; choose another name"


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a directory and its parents; those that were not there are not left when the block fails."""
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
    return f".{place.name[:40]}."  # a name may be as long as names can be


def _mode(place: Path, usual: int) -> int:
    """Return the permissions for what takes a place: those of what is there, or the usual ones for this process."""
    with suppress(FileNotFoundError):
        return place.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return usual & ~mask


def _replace_directory(new: Path, place: Path) -> None:
    if not place.exists():
        new.rename(place)
        return
    # A directory cannot be renamed over a full one: the old one steps aside first.
    aside = Path(tempfile.mkdtemp(prefix=_prefix(place), suffix=".old", dir=place.parent))
    place.rename(aside)
    try:
        new.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    shutil.rmtree(aside)


def _pour(source: Path, stream: Path, given: Path) -> None:
    """Write a file's bytes into a pipe or a device, neither of which is waited for long."""
    wait = f"{_PATIENCE_S:g} s"
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
    target = _patiently(partial(os.open, stream, flags), f"{given} cannot be written: nobody read it within {wait}")
    try:
        with source.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                rest = memoryview(block)
                while rest:
                    problem = f"{given} cannot be written to its end: nobody read on within {wait}"
                    rest = rest[_patiently(partial(os.write, target, rest), problem) :]
    finally:
        os.close(target)


def _patiently(attempt: Callable[[], T], problem: str) -> T:
    """Return what an attempt returns, which is repeated while a pipe has no reader (ENXIO) or is full (EAGAIN)."""
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return attempt()
        except OSError as error:
            if error.errno not in {errno.ENXIO, errno.EAGAIN}:
                raise
            if time.monotonic() > end:
                raise OutputError(problem) from error
        time.sleep(_PAUSE_S)
