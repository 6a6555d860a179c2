"""The exception classes of FSD-Inference.

::

    FsdError
    ├── InputError              an input from the user is invalid; the CLI ends with exit code 2
    │   ├── FileFormatError     a file is missing, truncated, corrupt or of the wrong format
    │   └── SettingError        a flag or setting is invalid, alone or in combination
    ├── OutputError             an output could not be written completely: full disk, pipe without a reader
    ├── StoreError              an object store could not read or write (never raised for an absent object)
    │   └── AccessDeniedError   the store denied access: credentials or policy
    ├── ChannelError            a channel could not send or receive
    │   ├── LimitError          a frame or batch exceeds a size limit of the service
    │   └── PeerGoneError       the process of another rank has ended; its cause is reported separately
    ├── LaneError               no lane could be leased, or a lease was lost
    ├── ResourceLimitError      the machine refuses another thread, process or open file, or lacks memory
    ├── StackError              a stack's resources are missing, wrong or do not respond
    │   ├── AsleepError         a function that was unused for weeks is not ready yet
    │   └── NotAllowedError     a service denied access: credentials or policy
    └── RunError                a run failed; names rank, layer and operation
        ├── NumericError        a value is not finite, or too large to be sent; names layer and neuron
        ├── StartError          a rank did not report its start in time (start clock)
        ├── StallError          no frame arrived from a rank in time (stall clock)
        ├── DeadlineError       the run exceeded its deadline (run clock)
        ├── HandedOnError       functions are near their time limit; another attempt goes on from a checkpoint
        │   └── StragglerError  a rank is much slower than the others; another attempt goes on from a checkpoint
        ├── WorkerDiedError     a rank's process ended unexpectedly
        ├── StackUpdatedError   functions of two releases took part in one run
        ├── VerificationError   a layer's outputs differ from those of the run that the run was compared with
        └── AbortedError        a rank was stopped because another rank failed
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class FsdError(Exception):
    """Base class of all errors; `retryable` says whether trying again can help.

    Parameters
    ----------
    message : str
        One sentence: what failed, where, and what to do.
    retryable : bool, optional
        Whether trying again can help; the class's default if not given.
    """

    retryable = False

    def __init__(self, message: str = "", *, retryable: bool | None = None) -> None:
        super().__init__(message)
        if retryable is not None:
            self.retryable = retryable


class InputError(FsdError):
    """An input from the user is invalid."""


class FileFormatError(InputError):
    """A file is missing, truncated, corrupt or of the wrong format."""


class SettingError(InputError):
    """A flag or setting is invalid, alone or in combination with others."""


class OutputError(FsdError):
    """An output could not be written completely, though its path is valid: a full disk, a pipe without a reader."""

    retryable = True


class StoreError(FsdError):
    """An object store could not read or write; an absent object is not an error."""

    retryable = True


class AccessDeniedError(StoreError):
    """A store denied access: check credentials and policies."""

    retryable = False


class ChannelError(FsdError):
    """A channel could not send or receive."""

    retryable = True


class LimitError(ChannelError):
    """A frame or a batch exceeds a size limit of the service."""

    retryable = False


class PeerGoneError(ChannelError):
    """The process of another rank has ended; the cause is reported separately.

    Parameters
    ----------
    message : str
    rank : int, optional
        The rank whose process has ended.
    """

    def __init__(self, message: str = "", *, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class LaneError(FsdError):
    """No lane could be leased, or a lease was lost."""

    retryable = True


class ResourceLimitError(FsdError):
    """The machine refuses another thread, process or open file, or has less memory left than a run takes at least."""


class StackError(FsdError):
    """A stack's resources are missing, not as described or do not respond, or the emulator did not start."""


class AsleepError(StackError):
    """A function that was unused for weeks is being made ready by Lambda, and cannot be invoked yet."""

    retryable = True


class NotAllowedError(StackError):
    """A service denied access: check credentials and policies."""


class RunError(FsdError):
    """A run failed.

    Parameters
    ----------
    message : str
        One sentence: what failed and what to do.
    rank, layer : int, optional
        Rank and layer in which it failed.
    operation : str, optional
        The operation that failed, in one or two words ("receive", "compute").
    retryable : bool, optional
        Whether trying again can help; the class's default if not given.
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
        """Return the error as plain JSON values, the form in aborts and reports."""
        return {
            "type": type(self).__name__,
            "message": str(self),
            "rank": self.rank,
            "layer": self.layer,
            "operation": self.operation,
            "retryable": self.retryable,
        }


class NumericError(RunError):
    """A value is not finite, or too large for the number format in which it is sent."""


class StartError(RunError):
    """A rank or the coordinator did not report its start before the start clock expired."""

    retryable = True


class StallError(RunError):
    """No frame arrived from a rank before the stall clock expired."""

    retryable = True


class DeadlineError(RunError):
    """The run exceeded its deadline."""

    retryable = True


class HandedOnError(RunError):
    """The functions of an attempt are near their time limit; another one goes on from the last checkpoint."""

    retryable = True


class StragglerError(HandedOnError):
    """A rank is so much slower than the others that another attempt, from a checkpoint, ends earlier."""


class WorkerDiedError(RunError):
    """A rank's process ended unexpectedly."""

    retryable = True


class StackUpdatedError(RunError):
    """Functions of two releases took part in one run: the stack was being updated."""

    retryable = True


class VerificationError(RunError):
    """The outputs of a layer differ from those of the run with which the run was compared."""


class AbortedError(RunError):
    """A rank was stopped because another rank failed."""


def reason(error: OSError) -> str:
    """Return the system's message for an error, with the limit if too many files are open."""
    text = error.strerror or str(error)
    if error.errno != errno.EMFILE:
        return text
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"{text} (a process may have {limit}: raise the limit with ulimit -n)"


_RUN_ERRORS: dict[str, type[RunError]] = {
    kind.__name__: kind
    for kind in (
        RunError,
        NumericError,
        StartError,
        StallError,
        DeadlineError,
        HandedOnError,
        StragglerError,
        WorkerDiedError,
        StackUpdatedError,
        VerificationError,
        AbortedError,
    )
}


def run_error_from_record(record: Mapping[str, object]) -> RunError:
    """Rebuild a run error from `RunError.record`; an unknown type becomes a plain `RunError`."""
    kind = _RUN_ERRORS.get(str(record.get("type")), RunError)
    rank, layer, operation = record.get("rank"), record.get("layer"), record.get("operation")
    return kind(
        str(record.get("message", "the run failed without a message")),
        rank=rank if isinstance(rank, int) else None,
        layer=layer if isinstance(layer, int) else None,
        operation=operation if isinstance(operation, str) else None,
        retryable=bool(record.get("retryable")),
    )


def as_run_error(error: BaseException, *, rank: int, operation: str, layer: int | None = None) -> RunError:
    """Return `error` as a `RunError` that names rank, layer and operation; a `RunError` is returned itself.

    The rank that is named is the one that is gone if that is what `rank` has noticed.
    """
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
    blamed = error.rank if isinstance(error, PeerGoneError) and error.rank is not None else rank
    return RunError(f"{where}, {operation}: {text}", rank=blamed, layer=layer, operation=operation, retryable=retryable)


@contextmanager
def client_operation(operation: str, what: str) -> Iterator[None]:
    """Raise failures in a `with` block, in which a run's client works, as a `RunError` that names the operation.

    Invalid inputs stay what they are: they are not failures of the run.

    Parameters
    ----------
    operation : str
        The operation, in one or two words.
    what : str
        What the client is doing, for the message.
    """
    try:
        yield
    except (InputError, RunError):
        raise
    except FsdError as error:
        raise RunError(f"{what}: {error}", operation=operation, retryable=error.retryable) from error
