"""Functions that sleep: after weeks without an invocation Lambda reclaims what a function needs, until it is invoked.

The first invocation of such a function is rejected and starts its recreation ("Inactive" becomes "Pending");
invocations are rejected until the function is "Active" again (Lambda Developer Guide, "Lambda function states" and
"Invoking functions defined as container images", 2026-11). Whether an asynchronous invocation is rejected too, or
queued until its age limit, is not documented. So the state is read first, where that is allowed, and rejected
invocations are repeated.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fsd_inference.aws.clients import Clients, request
from fsd_inference.aws.events import WAKE_EVENT
from fsd_inference.config import RetrySettings
from fsd_inference.errors import AsleepError, NotAllowedError, StackError
from fsd_inference.limits import WAKING_POLL_S, WAKING_S
from fsd_inference.stack_description import FunctionsSpec, function_name
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

T = TypeVar("T")

_THREADS = 16
_ANSWER_S = 60.0
"""Seconds that a coordinator may take to start and to answer, in addition to the waking."""
_RETRY = RetrySettings()
_ONCE = RetrySettings(attempts=1)


def wake(
    client: LambdaClient,
    function: str,
    meter: UsageMeter,
    *,
    limit_s: float = WAKING_S,
    on_sleep: Callable[[], None] = lambda: None,
) -> None:
    """Wake a function if it sleeps, and return when it can be invoked.

    A caller whose policy does not allow reading the function's state returns at once, as one that gets no answer does:
    the invocation itself will tell.

    Parameters
    ----------
    client : boto3 client
        Lambda client with the SDK's retries turned off.
    function : str
        ARN of the function.
    meter : UsageMeter
        Counts ``lambda.settings`` and ``lambda.invoke``.
    limit_s : float, optional
        Longest wait in seconds.
    on_sleep : callable, optional
        Called once if the function sleeps.

    Raises
    ------
    AsleepError
        The function did not become ready in time.
    StackError
        Lambda could not make the function ready, for example because its image was deleted.
    """
    until, has_told = time.monotonic() + limit_s, False
    while True:
        try:
            state, reason = function_state(client, function, meter)
        except StackError:
            return
        if state == "Failed":
            raise StackError(f"{_name(function)} cannot be invoked: {reason}; see fsd stack check, and apply again")
        if state not in {"Inactive", "Pending"}:
            return
        if not has_told:
            has_told = True
            on_sleep()
        if state == "Inactive":
            _knock(client, function, meter)
        if time.monotonic() >= until:
            raise _still_asleep(function, limit_s)
        time.sleep(WAKING_POLL_S)


def function_state(client: LambdaClient, function: str, meter: UsageMeter) -> tuple[str, str]:
    """Return the state of a function, such as "Active" or "Inactive", and AWS's reason for it."""
    found = request(
        "lambda.settings",
        f"read the state of function {function}",
        lambda: client.get_function_configuration(FunctionName=function),
        meter=meter,
        retry=_RETRY,
        action="lambda:GetFunctionConfiguration",
    )
    return found.get("State", "Active"), found.get("StateReason", "AWS gives no reason")


def until_awake(
    call: Callable[[], T],
    function: str,
    *,
    limit_s: float = WAKING_S,
    on_sleep: Callable[[], None] = lambda: None,
) -> T:
    """Call `call`, which invokes a function, and repeat it while Lambda answers that the function sleeps.

    Parameters
    ----------
    call : callable
        Raises `AsleepError` while the function sleeps.
    function, limit_s, on_sleep
        As for `wake`.

    Raises
    ------
    AsleepError
        The function did not become ready in time.
    """
    until, has_told = time.monotonic() + limit_s, False
    while True:
        try:
            return call()
        except AsleepError as error:
            if time.monotonic() >= until:
                raise _still_asleep(function, limit_s) from error
            if not has_told:
                has_told = True
                on_sleep()
            time.sleep(WAKING_POLL_S)


def wake_workers(client: LambdaClient, functions: FunctionsSpec, meter: UsageMeter) -> list[str]:
    """Wake the worker functions of all memory sizes at once; return a line for each that cannot be woken."""

    def one(function: str) -> str | None:
        try:
            wake(client, function, meter)
        except StackError as error:
            return str(error)
        return None

    with ThreadPool(_THREADS) as threads:
        found = list(threads.map(one, [worker.arn for worker in functions.workers]))
    return [problem for problem in found if problem is not None]


def wake_stack(clients: Clients, functions: FunctionsSpec, meter: UsageMeter) -> list[str]:
    """Wake all functions of a stack; return a line for each that cannot be woken.

    A caller may invoke only the coordinator, which wakes the worker functions.

    Raises
    ------
    StackError
        The coordinator cannot be woken or invoked, or does not answer as one.
    """
    what = f"invoke the coordinator {functions.coordinator}"
    wake(clients.functions, functions.coordinator, meter)
    client = clients.functions_answering_within(WAKING_S + _ANSWER_S)

    def ask() -> Any:
        answer = request(
            "lambda.invoke",
            what,
            lambda: client.invoke(FunctionName=functions.coordinator, Payload=json.dumps(WAKE_EVENT).encode()),
            meter=meter,
            retry=_ONCE,
            action="lambda:InvokeFunction",
        )
        return json.loads(answer["Payload"].read())

    try:
        found = until_awake(ask, functions.coordinator)
    finally:
        client.close()
    match found:
        case {"asleep": list(problems)}:
            return [str(problem) for problem in problems]
    raise StackError(f"cannot {what} to wake the workers: it answered {json.dumps(found):.200}; see its log")


def _knock(client: LambdaClient, function: str, meter: UsageMeter) -> None:
    """Invoke a sleeping function with an event that does nothing; only a real invocation wakes it, not a dry run."""
    with suppress(AsleepError, NotAllowedError):  # the rejection wakes the function; who may not invoke it waits
        request(
            "lambda.invoke",
            f"wake function {function}",
            lambda: client.invoke(FunctionName=function, Payload=json.dumps(WAKE_EVENT).encode()),
            meter=meter,
            retry=_ONCE,
        )


def _still_asleep(function: str, limit_s: float) -> AsleepError:
    return AsleepError(
        f"{_name(function)} was unused for weeks and is not ready after {limit_s:.0f} s of waking it: "
        "run fsd stack check --wake, and try again"
    )


def _name(function: str) -> str:
    return f"function {function_name(function)}"
