"""The status of a run: one small object that its coordinator writes and its client polls."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fsd_inference.errors import FileFormatError, RunError, run_error_from_record
from fsd_inference.fields import Fields, load_json
from fsd_inference.stragglers import Straggler

State = Literal["waking", "queued", "waiting", "running", "done", "failed"]

STATUS_FOLDER = "status/"

INLINE_BYTES = 128 * 1024
"""Maximum total size in bytes of results included in the status, which saves the client one request per rank."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The status of one attempt at a run.

    Attributes
    ----------
    run, attempt, plan, channel, workers, samples
        The requested attempt, as in its `RunEvent`.
    state : {"waking", "queued", "waiting", "running", "done", "failed"}
        Waiting for a worker function that was unused for weeks; to be invoked again, because the account runs as many
        functions as it may; waiting for a lane; ranks are running; ended with a
        result; ended with an error.
    received : float
        Start of the coordinator, in seconds since the epoch.
    launched, ended : float or None
        Start of rank 0 and end of the run, in seconds since the epoch.
    layers : int
        Number of layers of the network; 0 until the coordinator has read the plan.
    error : RunError or None
        The error with which the run failed.
    results : tuple of bytes or None
        The result objects by rank (of rank 0 alone for summaries) if they are small; otherwise they are stored under
        `RunSpec.result_key`.
    stragglers : tuple of Straggler
        Ranks that were found to be much slower than the others while the attempt went on.
    """

    run: str
    attempt: int
    plan: str
    channel: str
    workers: int
    samples: int
    state: State
    received: float
    layers: int = 0
    launched: float | None = None
    ended: float | None = None
    error: RunError | None = None
    results: tuple[bytes, ...] | None = None
    stragglers: tuple[Straggler, ...] = ()

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and this status is final."""
        return self.state in {"done", "failed"}

    def to_json(self) -> dict[str, Any]:
        """Return the status as plain JSON values."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        return {
            "version": _VERSION,
            **plain,
            "error": None if self.error is None else self.error.record(),
            "stragglers": [straggler._asdict() for straggler in self.stragglers],
            "results": None
            if self.results is None
            else [base64.b64encode(result).decode("ascii") for result in self.results],
        }

    @classmethod
    def from_json(cls, value: object) -> RunStatus:
        """Parse and validate a status; raise `FileFormatError` if it is invalid."""
        fields = Fields(value, "", "a run's status")
        version = fields.take("version", int)
        if version != _VERSION:
            raise FileFormatError(
                f"the run's status has version {version}, and this program reads version {_VERSION}: "
                "use the release that the stack's functions were deployed with"
            )
        error = fields.take_optional("error", dict)
        results = fields.take_optional("results", list)
        status = cls(
            **{name: fields.take(name, kind) for name, kind in _WHAT.items()},
            state=_state(fields.take("state", str)),
            received=fields.take_time("received"),
            layers=fields.take("layers", int),
            launched=fields.take_time_optional("launched"),
            ended=fields.take_time_optional("ended"),
            error=None if error is None else run_error_from_record(error),
            stragglers=tuple(
                Straggler(each.take_count("rank"), each.take_number("factor"), each.take_count("layer"))
                for each in fields.take_each_if("stragglers")
            ),
            results=None if results is None else tuple(_decode(result) for result in results),
        )
        fields.end()
        return status

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> RunStatus:
        """Parse the status object at `key`; raise `FileFormatError` if it is invalid."""
        try:
            return cls.from_json(load_json(data))
        except ValueError as error:
            raise FileFormatError(f"{key} is not a run's status: {error}") from error
        except FileFormatError as error:
            raise FileFormatError(f"{key}: {error}") from error


_WHAT: dict[str, type] = {"run": str, "attempt": int, "plan": str, "channel": str, "workers": int, "samples": int}
_PLAIN = (*_WHAT, "state", "received", "layers", "launched", "ended")


def status_key(run: str) -> str:
    """Return the key of a run's status, in the first run bucket."""
    return f"{STATUS_FOLDER}{run}"


def metrics_key(prefix: str) -> str:
    """Return the key of an attempt's metrics: the reports of all ranks, and the coordinator's usage."""
    return f"{prefix}metrics"


def heartbeat_key(prefix: str) -> str:
    """Return the key of the heartbeat of an attempt's coordinator: the number of its beats, as decimal text."""
    return f"{prefix}heartbeat"


def _state(text: str) -> State:
    for state in get_args(State):
        if state == text:
            found: State = state
            return found
    raise FileFormatError(f"'state' must be one of {', '.join(get_args(State))}, not {text!r}")


def _decode(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except ValueError as error:
        raise FileFormatError(f"'results' must hold base64: {error}") from error
