"""Rendering of pages in Debian's headless Chromium: the DOM, a screenshot, and the console messages."""

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
    """A page's DOM after its script ran, and the messages on the browser's console."""

    dom: str
    console: list[str]


def render(page: Path, *, width: int = 1240, height: int = 1400, dark: bool = False) -> Rendered:
    """Load a page in a headless browser; return its DOM and console messages."""
    done = _chromium(page, width, height, dark, ["--dump-dom"])
    return Rendered(done.stdout, _CONSOLE.findall(done.stderr))


def screenshot(page: Path, image: Path, *, width: int = 1240, height: int = 1400, dark: bool = False) -> list[str]:
    """Save a screenshot of a page as a PNG file, and return the console messages."""
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
        # Blink's values of preferredColorScheme: 0 is dark, 1 is light.
        command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done
