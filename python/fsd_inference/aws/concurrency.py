"""How many functions may run at a time, and whether a run fits.

The limits are the account's quota, a function's reservation, and the environments of one on Lambda Managed Instances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fsd_inference.aws.clients import request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import NotAllowedError, SettingError
from fsd_inference.stack_description import WorkerFunction
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

COORDINATORS = 1
"""Function invocations of a run in addition to its ranks; coordinators have no reservation."""

_RETRY = RetrySettings(attempts=3)
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Concurrency:
    """The limits of concurrent invocations that a run with a certain worker function is subject to.

    A function with reserved concurrency runs at most that often at a time, and takes nothing from what is unreserved;
    one on Managed Instances does so with its execution environments. All other functions of the account and region
    share what is unreserved.

    Attributes
    ----------
    memory_mb : int
        Memory of the worker function in MB.
    unreserved : int
        The account's unreserved concurrency.
    reserved : int or None
        What only the worker function may use: its reserved concurrency, or its environments on Managed Instances; None
        if it has neither.
    is_managed : bool
        Whether it runs on Managed Instances.
    """

    memory_mb: int
    unreserved: int
    reserved: int | None
    is_managed: bool = False

    @property
    def workers(self) -> int:
        """The largest number of workers of a run that has everything for itself."""
        rest = self.unreserved - COORDINATORS
        return max(0, rest if self.reserved is None or rest < 0 else self.reserved)

    def runs(self, workers: int) -> int:
        """Return how many runs of `workers` workers fit at a time."""
        if self.reserved is None:
            return self.unreserved // (workers + COORDINATORS)
        return min(self.reserved // workers, self.unreserved // COORDINATORS)

    def refusal(self, workers: int) -> str:
        """Return why no run of `workers` workers fits, and what to do, for an error message."""
        if self.reserved is None or self.unreserved < COORDINATORS:
            return (
                f"{workers} workers and their coordinator need more functions than this account can run at a time "
                f"({self.unreserved} unreserved): use at most {self.workers} workers, or ask AWS for a higher "
                "concurrency quota"
            )
        if self.is_managed:
            return (
                f"{workers} workers need more execution environments than workers of {self.memory_mb} MB have on "
                f"Managed Instances ({self.reserved}): use at most {self.workers} workers, or raise environments in "
                "the stack's managed_instances"
            )
        return (
            f"{workers} workers need more functions than are reserved for workers of {self.memory_mb} MB "
            f"({self.reserved}): use at most {self.workers} workers, or raise the stack's reserved_concurrency"
        )


def unreserved_concurrency(client: LambdaClient, meter: UsageMeter) -> int:
    """Return the unreserved concurrency of the account and region.

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
        client.get_account_settings,
        meter=meter,
        retry=_RETRY,
        action="lambda:GetAccountSettings",
    )
    return answer["AccountLimit"]["UnreservedConcurrentExecutions"]


def read_concurrency(
    client: LambdaClient, functions: Sequence[WorkerFunction], meter: UsageMeter
) -> tuple[Concurrency, ...]:
    """Return the limits for each of some worker functions.

    Callers whose policy does not allow reading a function's reservation take it to have none. The environments of a
    function on Managed Instances are those of the stack's description.

    Raises
    ------
    StackError, NotAllowedError
        As for `unreserved_concurrency`, and Lambda does not answer for a function.
    """
    unreserved = unreserved_concurrency(client, meter)

    def one(function: WorkerFunction) -> Concurrency:
        if function.managed is not None:
            return Concurrency(function.memory_mb, unreserved, function.managed.environments, is_managed=True)
        try:
            answer = request(
                "lambda.settings",
                f"read the reserved concurrency of function {function.arn}",
                partial(client.get_function_concurrency, FunctionName=function.arn),
                meter=meter,
                retry=_RETRY,
                action="lambda:GetFunctionConcurrency",
            )
        except NotAllowedError:
            return Concurrency(function.memory_mb, unreserved, None)
        return Concurrency(function.memory_mb, unreserved, answer.get("ReservedConcurrentExecutions"))

    with ThreadPool(_THREADS) as threads:
        return tuple(threads.map(one, functions))


def check_concurrency(
    client: LambdaClient, functions: Sequence[WorkerFunction], workers: int, meter: UsageMeter, runs: int = 1
) -> None:
    """Raise `SettingError` if `runs` concurrent runs of `workers` ranks fit with none of some worker functions.

    Callers whose policy does not allow reading the account's limit skip the check.
    """
    try:
        found = read_concurrency(client, functions, meter)
    except NotAllowedError:
        return
    best = max(found, key=lambda limits: limits.runs(workers))
    if best.runs(workers) < 1:
        raise SettingError(max(found, key=lambda limits: limits.workers).refusal(workers))
    if best.runs(workers) < runs:
        own = "environments of workers" if best.is_managed else "reserved for workers"
        which = f"{best.unreserved} unreserved" if best.reserved is None else f"{best.reserved} {own}"
        raise SettingError(
            f"{runs} replicas with a coordinator each need more functions than this account can run at a time "
            f"({which}): use at most {best.runs(workers)} replicas, or ask AWS for a higher concurrency quota"
        )
