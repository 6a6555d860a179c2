"""Limits of concurrent functions: which runs fit, from Lambda's answers, and what a check says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import boto3
import pytest
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws.concurrency import Concurrency, read_concurrency
from fsd_inference.aws.preflight import _concurrency, _function_settings
from fsd_inference.stack_description import FunctionsSpec, ManagedInstances, StackSpec, WorkerFunction
from fsd_inference.usage import UsageMeter

ARN = "arn:aws:lambda:us-east-1:000000000000:function:s-"
SIZES = (WorkerFunction(512, f"{ARN}worker-512"), WorkerFunction(1769, f"{ARN}worker-1769"))
FUNCTIONS = FunctionsSpec(f"{ARN}coordinator", SIZES, "http://127.0.0.1:1/failures", 900.0)
STACK = StackSpec("s", None, "us-east-1", (), ("runs",), "networks", functions=FUNCTIONS)


@pytest.fixture
def lambda_() -> Iterator[tuple[Any, Stubber]]:
    session = boto3.Session("test", "test", region_name="us-east-1")
    client = session.client("lambda", endpoint_url="http://127.0.0.1:1")
    with Stubber(client) as stub:
        yield client, stub
    client.close()


def answers(stub: Stubber, unreserved: int, *reserved: int | None) -> None:
    limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": unreserved}
    stub.add_response("get_account_settings", {"AccountLimit": limit})
    for value in reserved:
        answer = {} if value is None else {"ReservedConcurrentExecutions": value}
        stub.add_response("get_function_concurrency", answer, {"FunctionName": ANY})


@pytest.mark.parametrize(
    ("unreserved", "reserved", "workers"),
    [(1000, None, 999), (400, 200, 200), (100, 900, 900), (1, None, 0), (0, 200, 0), (100, 0, 0)],
)
def test_the_largest_run(unreserved: int, reserved: int | None, workers: int, lambda_: tuple[Any, Stubber]) -> None:
    client, stub = lambda_
    answers(stub, unreserved, reserved)
    (found,) = read_concurrency(client, SIZES[:1], UsageMeter())
    assert found == Concurrency(512, unreserved, reserved)
    assert found.workers == workers


def test_who_may_not_read_a_reservation_takes_it_to_be_absent(lambda_: tuple[Any, Stubber]) -> None:
    client, stub = lambda_
    answers(stub, 1000)
    stub.add_client_error("get_function_concurrency", "AccessDeniedException", "no", 403)
    (found,) = read_concurrency(client, SIZES[:1], UsageMeter())
    assert found == Concurrency(512, 1000, None)


MANAGED = WorkerFunction(32_768, f"{ARN}worker-32768:$LATEST.PUBLISHED", ManagedInstances(3, 16))


def test_managed_instances_run_as_much_as_their_environments_whatever_the_account_may(
    lambda_: tuple[Any, Stubber],
) -> None:
    client, stub = lambda_
    answers(stub, 2)  # and is asked for no reservation, which such a function cannot have
    (found,) = read_concurrency(client, (MANAGED,), UsageMeter())
    assert (found.workers, found.runs(3), found.runs(1)) == (3, 1, 2)  # of 3 runs the account has 2 coordinators
    assert "workers of 32768 MB have on Managed Instances (3): use at most 3 workers" in found.refusal(4)


def test_a_check_looks_at_the_version_of_managed_instances_that_is_invoked(lambda_: tuple[Any, Stubber]) -> None:
    client, stub = lambda_
    functions = replace(FUNCTIONS, workers=(MANAGED,))
    for arn, memory_mb, state in ((FUNCTIONS.coordinator, 512, "Active"), (MANAGED.arn, 32_768, "Pending")):
        answer = {"State": state, "MemorySize": memory_mb, "Timeout": 900, "CodeSha256": "c0de"}
        answer["Environment"] = {"Variables": {"FSD_STACK_BUCKET": "networks"}}
        stub.add_response("get_function_configuration", answer, {"FunctionName": arn})
    clients = cast("Any", SimpleNamespace(functions=client))
    found = [(one.what, one.text) for one in _function_settings(clients, STACK, functions, UsageMeter())]
    assert found[:2] == [
        ("function s-coordinator", "512 MB, 900 s, active"),
        ("function s-worker-32768", "it is Pending (no reason given)"),
    ]


def test_a_check_names_what_managed_instances_can_run(lambda_: tuple[Any, Stubber]) -> None:
    client, stub = lambda_
    answers(stub, 100, None)
    functions = replace(FUNCTIONS, workers=(SIZES[1], MANAGED))
    finding = _concurrency(cast("Any", SimpleNamespace(functions=client)), STACK, functions, UsageMeter())
    assert finding.state == "ok"
    assert finding.text == "the largest run has P = 99; by size: 99 workers of 1769 MB, 3 workers of 32768 MB"


@given(st.integers(0, 60), st.none() | st.integers(0, 60), st.integers(1, 12))
def test_as_many_runs_fit_as_can_be_started_one_by_one(unreserved: int, reserved: int | None, workers: int) -> None:
    limits, runs = Concurrency(512, unreserved, reserved), 0
    account, function = unreserved, reserved
    while True:
        account -= 1 if function is not None else 1 + workers
        function = None if function is None else function - workers
        if account < 0 or (function is not None and function < 0):
            break
        runs += 1
    assert limits.runs(workers) == runs
    assert (limits.workers >= workers) == (runs > 0)


@pytest.mark.parametrize(
    ("unreserved", "reserved", "state", "text"),
    [
        (1000, (None, None), "ok", "the largest run has P = 999"),
        (400, (200, 200), "ok", "the largest run has P = 200"),
        (
            100,
            (900, None),
            "ok",
            "the largest run has P = 900; by size: 900 workers of 512 MB, 99 workers of 1769 MB",
        ),
        (
            100,
            (900, 0),
            "problem",
            "no worker of 1769 MB can run: the account has 100 unreserved functions, and 0 for them",
        ),
        (
            1,
            (None, None),
            "problem",
            "no worker of 512 MB can run: the account has 1 unreserved functions; ask AWS for more",
        ),
    ],
)
def test_what_a_check_says(
    unreserved: int, reserved: tuple[int | None, ...], state: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuple(Concurrency(size.memory_mb, unreserved, each) for size, each in zip(SIZES, reserved, strict=True))
    monkeypatch.setattr("fsd_inference.aws.preflight.read_concurrency", lambda *_: found)
    clients = cast("Any", SimpleNamespace(functions=None))
    finding = _concurrency(clients, STACK, FUNCTIONS, UsageMeter())
    assert finding.state == state
    assert text in finding.text
