"""What a failed command says: one line, an exit code, and a record for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from fsd_inference.errors import FsdError, InputError, RunError, reason

EXPLAINED = (typer.TyperException, FsdError, OSError, MemoryError)
"""What is explained; anything else is a mistake in the program, whose traceback is wanted."""

_WRONG_PATH = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


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
            text = reason(error)
            if error.filename and error.strerror:
                text = f"{error.filename}: {text}"
            is_path = isinstance(error, _WRONG_PATH)
            # A full disk or a lost connection may be mended; a wrong path stays wrong.
            return Failure(text or kind, 2 if is_path else 1, kind, retryable=not is_path)
        case _:
            return Failure("there is not enough memory; use fewer samples, or more workers", 1, kind)
