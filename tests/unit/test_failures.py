"""Interpretation of records of Lambda's on-failure destination."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fsd_inference.aws.events import RankEvent, RunEvent
from fsd_inference.aws.failures import parse_coordinator_failure, parse_failure
from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StackUpdatedError, StartError, WorkerDiedError

ID = "0123456789abcdef" * 2
EVENT = RankEvent(RunSpec(ID, 2, ID, 10, 4, 50.0, RunSettings(workers=8)), 3, 0, "object", 1769, None, "c0de", "57ac")


def record(condition: str, answer: dict[str, Any] | None) -> str:
    value = {"requestContext": {"condition": condition}, "requestPayload": EVENT.to_json(), "responsePayload": answer}
    return json.dumps(value)


@pytest.mark.parametrize(
    ("condition", "answer", "kind", "retryable", "words"),
    [
        (
            "RetriesExhausted",
            {"errorType": "Runtime.ExitError", "errorMessage": "RequestId: 1 Error: signal: killed"},
            WorkerDiedError,
            True,
            ("rank 3", "signal: killed", "function of 1769 MB", "more memory"),
        ),
        (
            "RetriesExhausted",
            {"errorMessage": "2026-11-22 Task timed out after 900.00 seconds"},
            WorkerDiedError,
            True,
            ("rank 3", "timed out after 900.00 seconds"),
        ),
        ("EventAgeExceeded", None, StartError, True, ("did not start rank 3", "8 workers", "free concurrency")),
        ("RetriesExhausted", {"Reason": "Concurrent"}, StartError, True, ("did not start rank 3",)),
        (
            "RetriesExhausted",
            {"errorType": "StackUpdatedError", "errorMessage": "rank 3 has other code"},
            StackUpdatedError,
            True,
            ("other code",),
        ),
        (
            "RetriesExhausted",
            {"errorType": "SettingError", "errorMessage": "stack s has no workers of 5 MB"},
            RunError,
            False,
            ("rank 3 could not start", "no workers of 5 MB"),
        ),
    ],
)
def test_a_record_of_a_rank(
    condition: str, answer: dict[str, Any] | None, kind: type[RunError], retryable: bool, words: tuple[str, ...]
) -> None:
    failure = parse_failure(record(condition, answer))
    assert failure is not None
    assert failure.event == EVENT
    assert type(failure.error) is kind
    assert failure.error.rank == 3
    assert failure.error.retryable is retryable
    for word in words:
        assert word in str(failure.error)
    assert "\n" not in str(failure.error)


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"requestPayload": {"version": 1}}', '{"requestPayload": 3}'])
def test_other_messages_are_not_records_of_ranks(body: str) -> None:
    assert parse_failure(body) is None


def test_a_record_of_a_coordinator() -> None:
    run = RunEvent(EVENT.spec, "object", 1769)
    body = json.dumps({"requestPayload": run.to_json(), "responsePayload": {"errorMessage": "signal: killed"}})
    assert parse_failure(body) is None
    found = parse_coordinator_failure(body)
    assert found is not None
    event, error = found
    assert (event.spec.run, event.spec.attempt) == (EVENT.spec.run, EVENT.spec.attempt)
    assert str(error) == "the coordinator ended before the run did (signal: killed); try again"
    assert error.retryable
    assert parse_coordinator_failure(record("RetriesExhausted", None)) is None
