"""Command line and environment of child processes that run a Python module with this interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_START = Path(__file__).with_name("start.py")


def command(module: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a module with the same package and libraries as this process.

    The current directory is not searched for modules (``-P``), so a ``queue.py`` in it never shadows the standard
    library's. Folders that were added to this process's `sys.path` are searched after the standard library and the
    environment's packages.

    Parameters
    ----------
    module : str
        Module to run as the main program, for example "fsd_inference.launch.worker" or "ministack".
    *arguments : str
        Command line arguments of the module.
    options : sequence of str, optional
        Additional options of the interpreter.
    """
    folders = os.pathsep.join(_search_path())
    return [sys.executable, "-P", *options, str(_START), module, folders, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for a child process: this process's, with the current directory removed from PYTHONPATH.

    An empty entry of PYTHONPATH, such as ``PYTHONPATH=$PYTHONPATH:/more`` creates, stands for the current directory.
    """
    handed_down = dict(os.environ)
    if "PYTHONPATH" in handed_down:
        entries = handed_down.pop("PYTHONPATH").split(os.pathsep)
        kept = os.pathsep.join(entry for entry in entries if entry)
        if kept:
            handed_down["PYTHONPATH"] = kept
    return handed_down


def _search_path() -> list[str]:
    """Return the absolute folders of `sys.path`, except the current directory."""
    try:
        here = os.getcwd()  # noqa: PTH109 - compared with strings
    except OSError:  # the current directory was removed
        here = ""
    return [entry for entry in dict.fromkeys(sys.path) if os.path.isabs(entry) and entry != here]  # noqa: PTH117
