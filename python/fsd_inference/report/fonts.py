"""Matplotlib's font list, built without warnings even if the user's cache folders are not writable."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_inference.temporary import TemporaryFolder

_FOLDERS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def load_fonts() -> None:
    """Import matplotlib's font manager; if the user's folders are not writable, with a temporary folder instead.

    Otherwise matplotlib and fontconfig, which it calls, would print warnings on standard error.
    """
    if "matplotlib.font_manager" in sys.modules or all(map(_is_usable, _FOLDERS)):
        return
    with TemporaryFolder("matplotlib") as folder:
        own = str(folder)
        with _environment(XDG_CACHE_HOME=own, MPLCONFIGDIR=os.environ.get("MPLCONFIGDIR", own)):
            import matplotlib.font_manager  # noqa: F401, PLC0415


def _is_usable(variable: str) -> bool:
    """Return whether matplotlib can use its folder below that of an environment variable; create it if necessary."""
    try:
        folder = Path(os.environ.get(variable) or Path.home() / _FOLDERS[variable]) / "matplotlib"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return False
    return os.access(folder, os.W_OK)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
