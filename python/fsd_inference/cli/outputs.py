"""Checks on what a command will write, made before anything long begins."""

from __future__ import annotations

import os
from pathlib import Path

from fsd_inference.errors import InputError, SettingError


def check_output(path: Path, *, directory: bool = False) -> None:
    """Raise InputError unless a file (or directory) can be written, or written again, at `path`."""
    parent = path.absolute().parent
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is not a directory; make it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{path} cannot be written: you may not write to {parent}")
    if directory and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file, but a directory is to be written there; choose another name")
    if not directory and path.is_dir():
        raise InputError(f"{path} is a directory, but a file is to be written there; choose another name")
    if path.exists() and not (path.is_file() or path.is_dir()):
        # A file is renamed into its place, which would take a device or a pipe away from everyone else.
        raise InputError(f"{path} is a device or a pipe, but a file is to be written there; choose another name")


def check_distinct(**paths: Path | None) -> None:
    """Raise SettingError if two of the named paths (those that are given) are one place."""
    places: dict[Path, str] = {}
    for name, path in paths.items():
        if path is None:
            continue
        other = places.setdefault(path.resolve(), name)
        if other != name:
            raise SettingError(f"{other} and {name} are both {path}; choose another name for one of them")
