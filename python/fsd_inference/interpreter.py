"""How a process of this interpreter is started for a module of the package."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

_START = Path(__file__).with_name("start.py")


def command(module: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
    """Return the command that runs a module with the package and the libraries that this process uses.

    A file of the current directory never takes the place of a module (``-P``): a ``queue.py`` beside the data is not
    run. What this process finds through additions to `sys.path` is found there too, after the standard library and the
    environment's packages.

    Parameters
    ----------
    module : str
        Run as the main program, for example "fsd_inference.launch.worker" or "ministack".
    *arguments : str
    options : sequence of str, optional
        More options of the interpreter.
    """
    folders = os.pathsep.join(_search_path())
    return [sys.executable, "-P", *options, str(_START), module, folders, *arguments]


def environment() -> dict[str, str]:
    """Return the environment for such a process: this one's, without the current directory among its modules.

    An empty entry of PYTHONPATH, as ``PYTHONPATH=$PYTHONPATH:/more`` makes one, stands for the current directory.
    """
    handed_down = dict(os.environ)
    if "PYTHONPATH" in handed_down:
        entries = handed_down.pop("PYTHONPATH").split(os.pathsep)
        kept = os.pathsep.join(entry for entry in entries if entry)
        if kept:
            handed_down["PYTHONPATH"] = kept
    return handed_down


def _search_path() -> list[str]:
    """Return the folders of `sys.path`, but for the current directory."""
    try:
        here = os.getcwd()  # noqa: PTH109 - compared with text
    except OSError:  # it was removed
        here = ""
    return [entry for entry in dict.fromkeys(sys.path) if os.path.isabs(entry) and entry != here]  # noqa: PTH117
