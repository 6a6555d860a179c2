"""Script that runs a module in a child process; see `interpreter.command`.

It is run by its path: ``python -P .../fsd_inference/start.py MODULE FOLDERS [ARGUMENT ...]``. Before anything of the
package is imported, it ensures that `fsd_inference` is imported from the folder that contains this script.
"""

from __future__ import annotations

import importlib.machinery
import os
import runpy
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent


class _ThisPackage:
    """Import finder that loads `fsd_inference` from this script's folder, regardless of `sys.path`."""

    @staticmethod
    def find_spec(name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the package; None for every other module."""
        return importlib.machinery.PathFinder.find_spec(name, [str(_PACKAGE.parent)]) if name == _PACKAGE.name else None


def main() -> None:
    """Search the same folders for modules as the parent process, and run the given module as the main program."""
    module, folders = sys.argv[1:3]
    del sys.argv[1:3]
    # Appended, so that a file in these folders never shadows a module of the standard library.
    sys.path.extend(folder for folder in folders.split(os.pathsep) if folder and folder not in sys.path)
    sys.meta_path.insert(0, _ThisPackage)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
