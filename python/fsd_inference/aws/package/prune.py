"""Removal of the parts of installed libraries that the functions do not need: ``python prune.py DIRECTORY``.

The module imports only the standard library, so that an image build can run it as a script.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SERVICES = frozenset({"lambda", "s3", "sns", "sqs", "sts"})
"""AWS services whose botocore data files are kept; botocore ships those of 400 services."""

_FOLDERS = (
    "**/__pycache__",
    "**/tests",
    "bin",
    "boto3/examples",
    "numpy/f2py",
    "numpy/_pyinstaller",
    "numpy/*/include",
)
_FILES = ("**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.a", "**/*.h", "**/*.c", "**/*.cpp")
_DESCRIPTIONS = ("botocore/data", "boto3/data")
_ELF = b"\x7fELF"


def prune(directory: Path) -> None:
    """Remove tests, headers, type stubs, compiled caches, unused services and debug information under `directory`.

    Parameters
    ----------
    directory : Path
        The directory into which the libraries were installed (`pip install --target`).
    """
    for folder in [*_found(directory, _FOLDERS), *_unused_services(directory)]:
        shutil.rmtree(folder, ignore_errors=True)
    for file in _found(directory, _FILES):
        file.unlink(missing_ok=True)
    for library in (directory / "fsd_inference").glob("*.so"):
        _strip(library)


def is_elf(path: Path) -> bool:
    """Return whether the file is an ELF binary: a compiled program or shared library."""
    with path.open("rb") as file:
        return file.read(len(_ELF)) == _ELF


def _found(directory: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in directory.glob(pattern)]


def _unused_services(directory: Path) -> Iterator[Path]:
    for folder in _DESCRIPTIONS:
        for service in (directory / folder).glob("*/"):
            if service.is_dir() and service.name not in SERVICES:
                yield service


def _strip(library: Path) -> None:
    """Strip debug information if binutils are installed and support the architecture; release wheels have none."""
    program = shutil.which("strip")
    if program is not None:
        command = [program, "--strip-debug", str(library)]
        subprocess.run(command, stderr=subprocess.DEVNULL, check=False)  # noqa: S603 - found on PATH


if __name__ == "__main__":
    prune(Path(sys.argv[1]))
