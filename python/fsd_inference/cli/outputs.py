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


def check_outputs(output: Path, is_in_parts: bool, categories: Path | None, report: Path | None, plots: bool) -> None:
    """Raise SettingError unless all output files of `fsd infer` can be written, and none is another one."""
    from fsd_inference.report.plots import check_plots  # noqa: PLC0415
    from fsd_inference.report.saving import FILES  # noqa: PLC0415

    if output.is_dir() and not is_in_parts:
        raise SettingError(f"{output} is a directory; write {output}{os.sep} to get a file in it for each input file")
    check_output(output, directory=is_in_parts, filled=is_in_parts)
    if categories is not None:
        check_output(categories)
    if report is not None:
        check_output(report, directory=True, filled=True)
        for name in FILES:
            check_distinct(report=report / name, output=output, categories=categories)
    if plots:
        if report is None:
            raise SettingError("--plots needs a directory to write to: give one with --report")
        check_plots()
