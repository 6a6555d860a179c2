"""Logging of the package: disabled by default; each record carries a run id and a rank.

The environment variable FSD_LOG sets the level at which the program and the processes of its ranks log to standard
error. Loggers are children of ``fsd_inference``, so applications can configure them with `logging` as usual.
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
"""Variable with the descriptor that a rank logs to: its starter's stderr, since its own only carries its failure."""
_PACKAGE = "fsd_inference"
_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s run=%(run).8s rank=%(rank)s %(message)s"
_NOBODY = {"run": "-", "rank": "-"}

logging.getLogger(_PACKAGE).addHandler(logging.NullHandler())


class Logger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry a run id and a rank.

    Parameters
    ----------
    name : str
        Name of the module that logs.
    run : str, optional
        Run id.
    rank : int, optional
        Rank within the run.
    """

    def __init__(self, name: str, *, run: str = "-", rank: int | None = None) -> None:
        super().__init__(logging.getLogger(name), {"run": run, "rank": "-" if rank is None else rank})

    def of(self, *, run: str, rank: int | None = None) -> Logger:
        """Return a logger of the same name for a run, or for one of its ranks."""
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
    """Start writing the package's log records to this process's log; do nothing if no level is set.

    Parameters
    ----------
    level : str, optional
        One of `LEVELS`; by default the value of FSD_LOG.
    as_json : bool, optional
        Whether to write one JSON object a line to standard output, as Lambda functions do.

    Raises
    ------
    SettingError
        The level is unknown.
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
    """The handler that `start` installs; there is at most one."""

    def __init__(self, *, as_json: bool) -> None:
        stream = sys.stdout if as_json else sys.stderr
        with suppress(KeyError, ValueError, OSError):
            stream = open(int(os.environ[_DESCRIPTOR]), "w", buffering=1, closefd=False)  # noqa: SIM115 - open until the process ends
        super().__init__(stream)
        form: logging.Formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S", defaults=_NOBODY)
        if as_json:
            form = _Json()
        form.converter = time.gmtime
        self.setFormatter(form)


@contextmanager
def handed_down() -> Iterator[tuple[str, int] | None]:
    """Yield the level and the descriptor with which another process logs like this one; None if logging is off."""
    level = logging.getLogger(_PACKAGE).getEffectiveLevel()
    names = [name for name in LEVELS if level <= logging.getLevelName(name.upper())]
    if level > logging.INFO or not names:
        yield None
        return
    try:
        descriptor = os.dup(int(os.environ.get(_DESCRIPTOR, "2")))
    except (OSError, ValueError):
        yield None
        return
    try:
        yield names[0], descriptor
    finally:
        os.close(descriptor)


def take_up(level: str, descriptor: int) -> None:
    """Have `start` log at a level and to a descriptor that another process has handed down."""
    os.environ[VARIABLE], os.environ[_DESCRIPTOR] = level, str(descriptor)
