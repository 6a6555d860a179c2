"""Debian's Chromium, headless: what a page becomes, what it looks like, and what it complains of."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
)
_CONSOLE = re.compile(r":CONSOLE[:(].*")


@dataclass(frozen=True)
class Rendered:
    """The document after its script ran, and the lines that the console got."""

    dom: str
    console: list[str]


def render(page: Path, *, width: int = 1240, height: int = 1400, dark: bool = False) -> Rendered:
    """Open a page without showing it."""
    done = _chromium(page, width, height, dark, ["--dump-dom"])
    return Rendered(done.stdout, _CONSOLE.findall(done.stderr))


def screenshot(page: Path, image: Path, *, width: int = 1240, height: int = 1400, dark: bool = False) -> list[str]:
    """Take a picture of a page as a PNG file, and return the lines that the console got."""
    done = _chromium(page, width, height, dark, [f"--screenshot={image}"])
    return _CONSOLE.findall(done.stderr)


def _chromium(
    page: Path, width: int, height: int, dark: bool, flags: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium: install Debian's package chromium to see the report pages rendered")
    with tempfile.TemporaryDirectory(prefix="fsd-chromium-") as profile:
        command = [program, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", *flags]
        # Blink's names for the scheme that a system prefers: 0 is dark, 1 is light.
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done
