"""A function's zip with only this package: its bootstrap runs an interpreter that has the libraries installed."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from fsd_inference.aws.package import Target, ZipFacts, add_our_package, write_zip
from fsd_inference.aws.package.prune import prune

# Same as the image's ENTRYPOINT. The emulator unpacks the zip into LAMBDA_TASK_ROOT; handlers are imported from there.
BOOTSTRAP = """#!/bin/sh
cd "$LAMBDA_TASK_ROOT" || exit 1
PYTHONPATH="$LAMBDA_TASK_ROOT" exec "{python}" -m awslambdaric "$_HANDLER"
"""


def here() -> Target:
    """Return the target of this machine and interpreter."""
    arch = "arm64" if platform.machine() == "aarch64" else "x86_64"
    return Target(arch, f"{sys.version_info.major}.{sys.version_info.minor}")


def code_zip(output: Path, *, python: str = sys.executable) -> ZipFacts:
    """Write a zip for runtime ``provided.al2023`` that runs the function's handler with the interpreter `python`."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        add_our_package(directory, here())
        prune(directory)
        (directory / "bootstrap").write_text(BOOTSTRAP.format(python=python))
        return write_zip(directory, output)
