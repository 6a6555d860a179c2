"""Every error that FSD-Inference raises on purpose.

::

    FsdError
    ├── InputError              what the user handed in cannot be used; the CLI ends with exit code 2
    │   ├── FileFormatError     a file is missing, truncated, corrupt or of another kind
    │   └── SettingError        a flag or setting makes no sense, alone or beside the others
    ├── OutputError             an output could not be written to its end: a full disk, a pipe that nobody reads
    ├── StoreError              a store could not read or write (never raised for "not there")
    │   └── AccessDeniedError   it refused: credentials or policy
    ├── ChannelError            a channel could not send or receive
    │   ├── LimitError          a frame or batch exceeds what the service takes
    │   └── PeerGoneError       the process of another rank has ended; what ended it is told apart
    ├── LaneError               no lane could be leased, or a lease was lost
    ├── ResourceLimitError      the machine refuses another thread, process or open file
    ├── StackError              the deployed resources are missing or differ from their description
    │   └── NotAllowedError     a service refused: credentials or policy
    └── RunError                a run ended without an answer; names rank, layer and operation
        ├── NumericError        a value is not finite; names layer and neuron
        ├── StartError          a rank never reported (start clock)
        ├── StallError          no frame from a rank (stall clock)
        ├── DeadlineError       the run did not end in time (run clock)
        ├── WorkerDiedError     a rank's process ended on its own
        ├── StackUpdatedError   functions of two releases met in a run
        └── AbortedError        another rank's failure stopped this one
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Mapping


class FsdError(Exception):
    """Base of all errors; `retryable` says whether trying again can help.

    Parameters
    ----------
    message : str
        One sentence: what failed, where, and what can be done.
    retryable : bool, optional
        Whether trying again can help; the class's own answer if not given.
    """

    retryable = False

    def __init__(self, message: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class InputError(FsdError):
    """What the user handed in cannot be used."""


class FileFormatError(InputError):
    """A file is missing, truncated, corrupt or of another kind."""


class SettingError(InputError):
    """A flag or setting makes no sense, alone or beside the others."""


class OutputError(FsdError):
    """An output could not be written to its end, though its place is right: a full disk, a pipe that nobody reads."""

    retryable = True


class StoreError(FsdError):
    """A store could not read or write; an absent object is not an error."""

    retryable = True


class AccessDeniedError(StoreError):
    """A store refused: credentials or policy."""

    retryable = False


class ChannelError(FsdError):
    """A channel could not send or receive."""

    retryable = True


class LimitError(ChannelError):
    """A frame or a batch exceeds what the service takes."""

    retryable = False


class PeerGoneError(ChannelError):
    """The process of another rank has ended; what ended it is told apart."""


class LaneError(FsdError):
    """No lane could be leased, or a lease was lost."""

    retryable = True


class ResourceLimitError(FsdError):
    """The machine refuses another thread, process or open file."""


class StackError(FsdError):
    """The deployed resources are missing or differ from their description."""


class NotAllowedError(StackError):
    """A service refused: credentials or policy."""


class RunError(FsdError):
    """A run ended without an answer.

    Parameters
    ----------
    message : str
        One sentence: what failed and what can be done.
    rank, layer : int, optional
        Where it failed.
    operation : str, optional
        What was being done, in one or two words ("receive", "compute").
    retryable : bool, optional
        Whether trying again can help; the class's own answer if not given.
    """

    def __init__(
        self,
        message: str,
        *,
        rank: int | None = None,
        layer: int | None = None,
        operation: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message, retryable=retryable)
        self.rank = rank
        self.layer = layer
        self.operation = operation

    def record(self) -> dict[str, str | int | bool | None]:
        """Return the error as plain JSON values, as aborts and reports carry it."""
        return {
            "type": type(self).__name__,
            "message": str(self),
            "rank": self.rank,
            "layer": self.layer,
            "operation": self.operation,
            "retryable": self.retryable,
        }


class NumericError(RunError):
    """A value is not finite."""


class StartError(RunError):
    """A rank never reported within the start clock."""

    retryable = True


class StallError(RunError):
    """No frame came from a rank within the stall clock."""

    retryable = True


class DeadlineError(RunError):
    """The run did not end by its deadline."""

    retryable = True


class WorkerDiedError(RunError):
    """A rank's process ended on its own."""

    retryable = True


class StackUpdatedError(RunError):
    """Functions of two releases met in a run: the stack was being updated."""

    retryable = True


class AbortedError(RunError):
    """Another rank's failure stopped this one."""


def reason(error: OSError) -> str:
    """Return what the system says of an error; of too many open files also how many there may be."""
    text = error.strerror or str(error)
    if error.errno != errno.EMFILE:
        return text
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"{text} (a process may have {limit}: raise that with ulimit -n)"


_RUN_ERRORS: dict[str, type[RunError]] = {
    kind.__name__: kind
    for kind in (
        RunError,
        NumericError,
        StartError,
        StallError,
        DeadlineError,
        WorkerDiedError,
        StackUpdatedError,
        AbortedError,
    )
}


def run_error_from_record(record: Mapping[str, object]) -> RunError:
    """Rebuild a run error from `RunError.record`; unknown types become a plain `RunError`."""
    kind = _RUN_ERRORS.get(str(record.get("type")), RunError)
    rank, layer, operation = record.get("rank"), record.get("layer"), record.get("operation")
    return kind(
        str(record.get("message", "the run failed without saying why")),
        rank=rank if isinstance(rank, int) else None,
        layer=layer if isinstance(layer, int) else None,
        operation=operation if isinstance(operation, str) else None,
        retryable=bool(record.get("retryable")),
    )


def as_run_error(error: BaseException, *, rank: int, operation: str, layer: int | None = None) -> RunError:
    """Return `error` as a `RunError` that names where it happened; run errors pass through."""
    if isinstance(error, RunError):
        if error.rank is None:
            error.rank = rank
        return error
    retryable = error.retryable if isinstance(error, FsdError) else False
    where = f"rank {rank}" + ("" if layer is None else f", layer {layer}")
    text = str(error) or type(error).__name__
    if isinstance(error, OSError):
        text = f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    elif not isinstance(error, FsdError):
        text = f"{type(error).__name__}: {text}"
    return RunError(f"{where}, {operation}: {text}", rank=rank, layer=layer, operation=operation, retryable=retryable)
