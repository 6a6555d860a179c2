"""Waiting for something to happen, and the temporary folders of runs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(happened: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < until, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.02)


def temporary_folders() -> set[Path]:
    """Return the temporary folders of sessions, runs and emulators."""
    return set(Path(tempfile.gettempdir()).glob("fsd-*"))
