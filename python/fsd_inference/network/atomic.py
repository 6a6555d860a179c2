"""Files and directories that appear whole or not at all: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_inference.errors import InputError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the place of `path` when the block ends without an exception.

    Raises
    ------
    InputError
        If the place cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a directory, so no file can be written there")
    with _said(target):
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
        beside = Path(name)
        try:
            beside.chmod(0o666 & ~_umask())
            yield beside
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], *, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a new directory beside `path` to fill; it takes the place of `path` when the block ends well.

    A directory that is there already is replaced if it is empty or `replaceable` says so of it.

    Raises
    ------
    InputError
        If something else is in its place, or the place cannot be written.
    """
    target = Path(path)
    with _said(target):
        if os.path.lexists(target) and not (target.is_dir() and (replaceable(target) or not any(target.iterdir()))):
            raise InputError(f"{target} is there already and is something else; remove it or choose another name")
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            beside.chmod(0o777 & ~_umask())
            yield beside
            if target.exists():
                # A directory cannot be renamed over a full one: the old one steps aside first.
                aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
                target.rename(aside)
                beside.rename(target)
                shutil.rmtree(aside)
            else:
                beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _said(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{target} cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
