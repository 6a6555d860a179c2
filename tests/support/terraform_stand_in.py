"""A program in place of Terraform that logs its arguments and knows one stack."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_PROGRAM = """#!/bin/sh
echo "$@" >> "{log}"
case "$2" in
  "{failing}") echo "cannot $2" >&2; exit 1;;
  "{slow}") trap 'echo stopped >> "{log}"; exit 1' INT; while :; do sleep 0.05; done;;
  output) cat "{stack}";;
esac
"""


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, stack: Path, *, failing: str = "", slow: str = "") -> Path:
    """Put a stand-in for Terraform on PATH; return the path of its log.

    The command `failing` fails; the command `slow` continues until it is interrupted.
    """
    log, programs = folder / "log", folder / "bin"
    programs.mkdir()
    program = programs / "terraform"
    program.write_text(_PROGRAM.format(log=log, stack=stack, failing=failing or "none", slow=slow or "none"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return log
