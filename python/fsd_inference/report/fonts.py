"""Matplotlib's list of fonts, whose making asks for folders that not every user has."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsd_inference.temporary import TemporaryFolder

_FOLDERS = {"XDG_CACHE_HOME": ".cache", "XDG_CONFIG_HOME": ".config"}


def load_fonts() -> None:
    """Import matplotlib with its fonts; where this user's folders cannot be written, with one that is made for it.

    Matplotlib and fontconfig, which it asks, would both complain of them on standard error.
    """
    if "matplotlib.font_manager" in sys.modules or all(map(_is_usable, _FOLDERS)):
        return
    with TemporaryFolder("matplotlib") as folder:
        own = str(folder)
        with _environment(XDG_CACHE_HOME=own, MPLCONFIGDIR=os.environ.get("MPLCONFIGDIR", own)):
            import matplotlib.font_manager  # noqa: F401, PLC0415


def _is_usable(variable: str) -> bool:
    """Whether matplotlib can have a folder of its own there; it makes one."""
    try:
        folder = Path(os.environ.get(variable) or Path.home() / _FOLDERS[variable]) / "matplotlib"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter: there is no home
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
