"""The Lambda concurrency of an account, and the check that a run fits into it."""

from __future__ import annotations

from fsd_inference.aws.clients import Clients, request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import NotAllowedError, SettingError
from fsd_inference.usage import UsageMeter

COORDINATORS = 1
"""Function invocations of a run in addition to its ranks."""

_RETRY = RetrySettings(attempts=3)


def free_concurrency(clients: Clients, meter: UsageMeter) -> int:
    """Return the unreserved concurrency of this account and region: how many functions may run at a time.

    Raises
    ------
    StackError
        Lambda does not answer.
    NotAllowedError
        The caller's policy does not allow the request.
    """
    answer = request(
        "lambda.settings",
        "read the account's concurrency limit",
        clients.functions.get_account_settings,
        meter=meter,
        retry=_RETRY,
        action="lambda:GetAccountSettings",
    )
    return answer["AccountLimit"]["UnreservedConcurrentExecutions"]


def check_concurrency(clients: Clients, workers: int, meter: UsageMeter, runs: int = 1) -> None:
    """Raise `SettingError` if `runs` concurrent runs of `workers` ranks exceed the account's concurrency.

    Callers whose policy does not allow reading the limit skip the check.
    """
    try:
        free = free_concurrency(clients, meter)
    except NotAllowedError:
        return
    if runs > 1 and runs * (workers + COORDINATORS) > free:
        raise SettingError(
            f"{runs} replicas with a coordinator each need more functions than this account can run at a time "
            f"({free} unreserved): use at most {max(free // (workers + COORDINATORS), 1)} replicas, or ask AWS for a "
            "higher concurrency quota"
        )
    if workers + COORDINATORS > free:
        raise SettingError(
            f"{workers} workers and their coordinator need more functions than this account can run at a time "
            f"({free} unreserved): use at most {max(free - COORDINATORS, 0)} workers, or ask AWS for a higher "
            "concurrency quota"
        )
