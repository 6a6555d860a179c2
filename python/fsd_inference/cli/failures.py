"""What a failed command says: one line, an exit code, and a record for machines."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from typing import Any

import typer

from fsd_inference.atomic import is_wrong_path
from fsd_inference.errors import FsdError, InputError, RunError, reason

EXPLAINED = (typer.TyperException, FsdError, OSError, MemoryError)
"""What is explained; anything else is a mistake in the program, whose traceback is wanted."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Failure:
    """One line for people, the exit code, and the same for machines."""

    text: str
    code: int
    kind: str
    rank: int | None = None
    layer: int | None = None
    operation: str | None = None
    retryable: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """What --json prints under "error"."""
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
    """Return what to say of an error that is one of `EXPLAINED`."""
    kind = type(error).__name__
    match error:
        case typer.TyperException():
            context = getattr(error, "ctx", None)
            text = error.format_message().rstrip(".")
            return Failure(text if context is None else f"{text}; see {context.command_path} --help", 2, "UsageError")
        case RunError():
            return Failure(str(error), 1, kind, error.rank, error.layer, error.operation, error.retryable)
        case FsdError():
            return Failure(str(error), 2 if isinstance(error, InputError) else 1, kind, retryable=error.retryable)
        case OSError():
            is_path = is_wrong_path(error)
            return Failure(_said_by_the_system(error) or kind, 2 if is_path else 1, kind, retryable=not is_path)
        case _:
            return Failure("there is not enough memory; use fewer samples, or more workers", 1, kind)


def _said_by_the_system(error: OSError) -> str:
    if isinstance(error, shutil.Error) and isinstance(
        error.args[0], list
    ):  # of a whole tree: a list of source, target, and why
        _, target, why = error.args[0][0]
        return f"{target}: {str(why).partition(':')[0]}"
    text = reason(error)
    is_full = error.errno in _NO_SPACE
    # Of two files, it is the second that is written.
    name = (error.filename2 if is_full else None) or error.filename
    if name and error.strerror:
        return f"{name}: {text}"
    # Outputs and stdout are named: what is left are temporary files.
    return f"{text}, where temporary files go (TMPDIR says where)" if is_full else text
