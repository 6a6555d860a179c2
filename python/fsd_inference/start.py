"""Run a module of this package in a process of its own; see `interpreter.command`.

Run by its path: ``python -P .../fsd_inference/start.py MODULE FOLDERS [ARGUMENT ...]``. It imports nothing of the
package before it has made sure that the package is the one that it lies in.
"""

from __future__ import annotations

import importlib.machinery
import os
import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent


class _ThisPackage:
    """Finds the package in its folder, wherever `sys.path` would find one of its name."""

    @staticmethod
    def find_spec(name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Return where the package is; None for every other module."""
        return importlib.machinery.PathFinder.find_spec(name, [str(_PACKAGE.parent)]) if name == _PACKAGE.name else None


def main() -> None:
    """Find modules where the starter does, and run the one that was asked for as the main program."""
    module, folders = sys.argv[1:3]
    del sys.argv[1:3]
    # Last, so that what lies in such a folder never stands in for a module of the standard library.
    sys.path.extend(folder for folder in folders.split(os.pathsep) if folder and folder not in sys.path)
    sys.meta_path.insert(0, _ThisPackage)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
