"""Libraries that only some formats need, and that come with extras."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fsd_inference.errors import SettingError

_EXTRAS = {"pyarrow": "tables", "h5py": "h5"}


def library(name: str, what: str) -> Any:
    """Import a module of an optional library.

    Parameters
    ----------
    name : str
        The module.
    what : str
        What it is needed for, as the error names it.

    Raises
    ------
    SettingError
        If the library is not installed, or cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingError(
            f"{what} needs {package}, which cannot be imported: pip install 'fsd-inference[{_EXTRAS[package]}]'"
        ) from error
