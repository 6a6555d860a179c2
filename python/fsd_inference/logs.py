"""Logging of the package: silent unless it is asked for, and each record says of which run and rank it is.

Programs write to standard error at the level that the variable FSD_LOG names, and so do their ranks. Loggers are
children of ``fsd_inference``, so a program of the user's configures them with `logging` as any others.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from fsd_inference.errors import SettingError

VARIABLE = "FSD_LOG"
LEVELS = ("debug", "info", "warning", "error")

_DESCRIPTOR = "FSD_LOG_DESCRIPTOR"
"""Where a rank logs: the starter's standard error, since its own is kept for the reason of its end."""
_PACKAGE = "fsd_inference"
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s run=%(run).8s rank=%(rank)s %(message)s"
_NOBODY = {"run": "-", "rank": "-"}

logging.getLogger(_PACKAGE).addHandler(logging.NullHandler())


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry a run and a rank.

    Parameters
    ----------
    name : str
        Of the module.
    run : str, optional
    rank : int, optional
    """

    def __init__(self, name: str, *, run: str = "-", rank: int | None = None) -> None:
        super().__init__(logging.getLogger(name), {"run": run, "rank": "-" if rank is None else rank})

    def of(self, *, run: str, rank: int | None = None) -> Logger:
        """Return the logger of the same name for a run, or for a rank of it."""
        return Logger(self.logger.name, run=run, rank=rank)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        value |= {name: getattr(record, name) for name in _NOBODY if hasattr(record, name)}
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)


def start(level: str | None = None, *, as_json: bool = False) -> None:
    """Write the package's records to where this process's log goes; nothing changes where no level is asked for.

    Parameters
    ----------
    level : str, optional
        One of `LEVELS`; that of FSD_LOG if not given.
    as_json : bool, optional
        A JSON object a line, on standard output: how functions log.

    Raises
    ------
    SettingError
        There is no such level.
    """
    asked = (level or os.environ.get(VARIABLE, "")).strip().lower()
    if not asked:
        return
    if asked not in LEVELS:
        raise SettingError(f"{VARIABLE} must be one of {', '.join(LEVELS)}, not {asked!r}")
    package = logging.getLogger(_PACKAGE)
    for handler in [one for one in package.handlers if isinstance(one, _Handler)]:
        package.removeHandler(handler)
    package.addHandler(_Handler(as_json=as_json))
    package.setLevel(asked.upper())


class _Handler(logging.StreamHandler[Any]):
    """Our own handler, of which there is one at most."""

    def __init__(self, *, as_json: bool) -> None:
        stream = sys.stdout if as_json else sys.stderr
        with suppress(KeyError, ValueError, OSError):
            stream = open(int(os.environ[_DESCRIPTOR]), "w", buffering=1, closefd=False)  # noqa: SIM115 - till the end
        super().__init__(stream)
        form: logging.Formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S", defaults=_NOBODY)
        if as_json:
            form = _Json()
        form.converter = time.gmtime
        self.setFormatter(form)


@contextmanager
def handed_down() -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Yield the variables and descriptors that make a process log as this one does; none where this one is silent."""
    level = logging.getLogger(_PACKAGE).getEffectiveLevel()
    names = [name for name in LEVELS if level <= logging.getLevelName(name.upper())]
    if level > logging.INFO or not names:
        yield {}, ()
        return
    try:
        descriptor = os.dup(int(os.environ.get(_DESCRIPTOR, "2")))
    except (OSError, ValueError):
        yield {}, ()
        return
    try:
        yield {VARIABLE: names[0], _DESCRIPTOR: str(descriptor)}, (descriptor,)
    finally:
        os.close(descriptor)
