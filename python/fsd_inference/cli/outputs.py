"""Checks of output paths, made before a command starts long work."""

from __future__ import annotations

import os
from pathlib import Path

from fsd_inference.atomic import place_of
from fsd_inference.errors import SettingError


def check_output(path: Path, *, directory: bool = False, filled: bool = False) -> None:
    """Raise InputError unless an output can be written to `path`, or replaced there; see `place_of`."""
    place_of(path, directory=directory, filled=filled)


def check_distinct(**paths: Path | None) -> None:
    """Raise SettingError if two of the named paths are the same file, even under different names; ignore None."""
    places: dict[object, tuple[str, Path]] = {}
    for name, path in paths.items():
        if path is None:
            continue
        other, same = places.setdefault(_identity(path), (name, path))
        if other != name:
            called = path if path == same else f"{same} and {path}, which is the same"
            raise SettingError(f"{other} and {name} are both {called}; choose another name for one of them")


def _identity(path: Path) -> tuple[int, int] | str:
    """Return a value that is equal for all paths of a file, including symbolic and hard links."""
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino
