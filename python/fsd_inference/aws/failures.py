"""Lambda's records of failed invocations, received from the stack's on-failure queue.

A rank that runs out of memory or time cannot report its own failure. Lambda's record of the invocation does, and
contains the event that started the rank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsd_inference.aws.clients import Clients, request
from fsd_inference.aws.events import RankEvent, RunEvent
from fsd_inference.config import RetrySettings
from fsd_inference.engine.worker import died
from fsd_inference.errors import (
    InputError,
    RunError,
    StackUpdatedError,
    StartError,
    WorkerDiedError,
    run_error_from_record,
)
from fsd_inference.fields import load_json
from fsd_inference.usage import UsageMeter

_RETRY = RetrySettings()


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed invocation of a rank: the event that started it, and the error to report."""

    event: RankEvent
    error: RunError


class FailureQueue:
    """The queue that is the on-failure destination of a stack's functions.

    Parameters
    ----------
    clients : Clients
    url : str
        URL of the queue.
    meter : UsageMeter
        Counts ``sqs.receive`` and ``sqs.delete``.
    """

    def __init__(self, clients: Clients, url: str, meter: UsageMeter) -> None:
        self._sqs = clients.sqs
        self._url = url
        self._meter = meter

    def receive(self, wait_s: int) -> list[tuple[str, str]]:
        """Receive up to 10 records, long polling for `wait_s` seconds; return each with the receipt that deletes it."""
        answer = request(
            "sqs.receive",
            f"receive from {self._url}",
            lambda: self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s),
            meter=self._meter,
            retry=_RETRY,
        )
        messages = answer.get("Messages", [])
        if not messages:
            self._meter.empty_poll()
        return [(message["Body"], message["ReceiptHandle"]) for message in messages]

    def delete(self, receipt: str) -> None:
        """Delete a record that has been handled."""
        request(
            "sqs.delete",
            f"delete a message of {self._url}",
            lambda: self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=receipt),
            meter=self._meter,
            retry=_RETRY,
        )


def parse_failure(body: str | bytes) -> Failure | None:
    """Parse the record of a rank's failed invocation; return None for anything else."""
    try:
        record = load_json(body)
        event = RankEvent.from_json(record["requestPayload"])
        context = _mapping(record.get("requestContext"))
        answer = _mapping(record.get("responsePayload"))
    except (ValueError, KeyError, TypeError, InputError):
        return None
    return Failure(event, _error(event, str(context.get("condition", "")), answer))


def reported_failure(error: RunError) -> bytes:
    """Return the object in which a rank tells its coordinator what it has noticed and told all other ranks."""
    return json.dumps({"reported": error.record()}).encode()


def parse_reported(data: bytes) -> RunError | None:
    """Parse the output of `reported_failure`; return None for anything else."""
    try:
        return run_error_from_record(load_json(data)["reported"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def parse_coordinator_failure(body: str | bytes) -> tuple[RunEvent, RunError] | None:
    """Parse the record of a coordinator's failed invocation; return its event and the error to report, or None."""
    try:
        record = load_json(body)
        event = RunEvent.from_json(record["requestPayload"])
        answer = _mapping(record.get("responsePayload"))
    except (ValueError, KeyError, TypeError, InputError):
        return None
    reason = _reason(str(answer.get("errorType", "")), str(answer.get("errorMessage", "")))
    return event, WorkerDiedError(f"the coordinator ended before the run did ({reason}); try again", operation="run")


def _error(event: RankEvent, condition: str, answer: Mapping[str, Any]) -> RunError:
    rank = event.rank
    kind, text = str(answer.get("errorType", "")), str(answer.get("errorMessage", "")).strip()
    if condition == "EventAgeExceeded" or not (kind or text):  # it never ran
        return StartError(
            f"Lambda did not start rank {rank} in time: {event.spec.settings.workers} workers and their coordinator "
            "must fit the account's free concurrency; use fewer workers, or ask AWS for more",
            rank=rank,
            operation="start",
        )
    if kind == StackUpdatedError.__name__:
        return StackUpdatedError(text, rank=rank, operation="start")
    if kind.endswith("Error") and not kind.startswith(("Runtime.", "Sandbox.")):  # raised by our handler
        return RunError(f"rank {rank} could not start: {text}", rank=rank, operation="start", retryable=False)
    return died(rank, f"{_reason(kind, text)}; function of {event.memory_mb} MB")


def _reason(kind: str, text: str) -> str:
    return " ".join(f"{kind}: {text}".strip(": ").split()) or "Lambda gives no reason"


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
