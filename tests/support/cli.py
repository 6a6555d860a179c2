"""Runs of the `fsd` program in this process, with captured output."""

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
    """The exit code and the output of a command."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """Return the JSON object on stdout; assert that stdout is one line."""
        value = json.loads(self.stdout)
        assert isinstance(value, dict)
        assert self.stdout.count("\n") == 1
        return value

    def error(self) -> str:
        """Return the error message; assert that stderr is one error line."""
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
    """Return the names of all entries of a folder, including hidden ones."""
    return {entry.name for entry in folder.iterdir()}
