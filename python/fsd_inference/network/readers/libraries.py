"""Import of optional libraries, which only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fsd_inference.errors import SettingError

_EXTRAS = {"pyarrow": "tables", "h5py": "h5", "onnx": "onnx", "torch": "torch"}


def library(name: str, what: str) -> Any:
    """Import and return a module of an optional library.

    Parameters
    ----------
    name : str
        Full name of the module.
    what : str
        What needs it, for the error message.

    Raises
    ------
    SettingError
        If the library cannot be imported.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingError(
            f"{what} needs {package}, which is not installed: pip install 'fsd-inference[{_EXTRAS[package]}]'"
        ) from error
    except (OSError, ValueError) as error:  # a shared library that it needs is missing
        raise SettingError(f"{what} needs {package}, which cannot be loaded: {error}; install it again") from error
