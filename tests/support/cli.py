"""Runs `fsd` in this process and keeps what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.cli.main import run


@dataclass(frozen=True)
class Said:
    """What a command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """Return the one JSON object that stdout must be."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        assert self.stdout.count("\n") == 1
        return value

    def error(self) -> str:
        """Return the one line that stderr must be."""
        assert self.stderr.startswith("error: "), self.stderr
        assert self.stderr.count("\n") == 1, self.stderr
        return self.stderr.removeprefix("error: ").rstrip("\n")


Fsd = Callable[..., Said]


def fsd_in(capsys: pytest.CaptureFixture[str]) -> Fsd:
    def call(*arguments: str | Path | int) -> Said:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


def entries(folder: Path) -> set[str]:
    """Return the names of everything in a folder, hidden things included."""
    return {entry.name for entry in folder.iterdir()}
