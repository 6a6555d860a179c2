"""Reporting of failed commands: one line of text, an exit code, and a record for --json."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from typing import Any

import typer

from fsd_inference.atomic import is_wrong_path
from fsd_inference.errors import FsdError, InputError, RunError, reason

EXPLAINED = (typer.TyperException, FsdError, OSError, MemoryError)
"""Exceptions that become one line; any other exception is a bug, so its traceback is shown."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Failure:
    """The description of a failed command.

    Attributes
    ----------
    text : str
        One line for people.
    code : int
        Exit code of the program.
    kind : str
        Name of the exception class.
    rank, layer : int or None
        Rank and layer in which a run failed.
    operation : str or None
        Operation of the run that failed.
    retryable : bool
        Whether trying again can help.
    """

    text: str
    code: int
    kind: str
    rank: int | None = None
    layer: int | None = None
    operation: str | None = None
    retryable: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """The record that --json prints as "error"."""
        return {
            "type": self.kind,
            "message": self.text,
            "rank": self.rank,
            "layer": self.layer,
            "operation": self.operation,
            "retryable": self.retryable,
        }


INTERRUPTED = Failure("interrupted", 130, "Interrupted")


def explain(error: BaseException) -> Failure:
    """Return the description of an exception of a type in `EXPLAINED`."""
    kind = type(error).__name__
    match error:
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            text = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # pydantic's prefix
            return Failure(text if context is None else f"{text}; see {context.command_path} --help", 2, "UsageError")
        case RunError():
            return Failure(str(error), 1, kind, error.rank, error.layer, error.operation, error.retryable)
        case FsdError():
            return Failure(str(error), 2 if isinstance(error, InputError) else 1, kind, retryable=error.retryable)
        case OSError():
            is_path = is_wrong_path(error)
            return Failure(_system_message(error) or kind, 2 if is_path else 1, kind, retryable=not is_path)
        case _:
            return Failure("out of memory; use fewer samples or more workers", 1, kind)


def _system_message(error: OSError) -> str:
    # An error from copying a tree holds a list of (source, target, reason).
    if isinstance(error, shutil.Error) and isinstance(error.args[0], list):
        _, target, why = error.args[0][0]
        return f"{target}: {str(why).partition(':')[0]}"
    text = reason(error)
    is_full = error.errno in _NO_SPACE
    # If the error names two files, the second is the one that was written.
    name = (error.filename2 if is_full else None) or error.filename
    if name and error.strerror:
        return f"{name}: {text}"
    # Errors of outputs and stdout have a file name, so this one is of a temporary file.
    return f"{text} in the directory for temporary files (set TMPDIR to choose another)" if is_full else text
