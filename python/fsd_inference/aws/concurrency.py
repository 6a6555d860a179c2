"""How many functions of an account can run at a time, and whether a run fits in."""

from __future__ import annotations

from fsd_inference.aws.clients import Clients, request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import NotAllowedError, SettingError
from fsd_inference.usage import UsageMeter

COORDINATORS = 1
"""Functions of a run beside its ranks."""

_RETRY = RetrySettings(attempts=3)


def free_concurrency(clients: Clients, meter: UsageMeter) -> int:
    """Return how many functions without a reservation of their own can run at a time in this account and region.

    Raises
    ------
    StackError
        Lambda does not answer.
    NotAllowedError
        The caller may not ask.
    """
    answer = request(
        "lambda.settings",
        "ask for the account's concurrency",
        clients.functions.get_account_settings,
        meter=meter,
        retry=_RETRY,
        action="lambda:GetAccountSettings",
    )
    return answer["AccountLimit"]["UnreservedConcurrentExecutions"]


def check_concurrency(clients: Clients, workers: int, meter: UsageMeter, runs: int = 1) -> None:
    """Raise `SettingError` for more workers than can run at a time, in `runs` runs; who may not ask goes on."""
    try:
        free = free_concurrency(clients, meter)
    except NotAllowedError:
        return
    if runs > 1 and runs * (workers + COORDINATORS) > free:
        raise SettingError(
            f"{runs} replicas and a coordinator for each are more functions than this account can run at a time "
            f"({free} without reservations): use at most {max(free // (workers + COORDINATORS), 1)} replicas, or ask "
            "AWS for a higher concurrency quota"
        )
    if workers + COORDINATORS > free:
        raise SettingError(
            f"{workers} workers and their coordinator are more functions than this account can run at a time "
            f"({free} without reservations): use at most {max(free - COORDINATORS, 0)} workers, or ask AWS for a "
            "higher concurrency quota"
        )
