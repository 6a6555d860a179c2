"""A launcher that starts ranks as invocations of a Lambda function."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from fsd_inference.aws.clients import request
from fsd_inference.aws.events import RankEvent
from fsd_inference.aws.waking import until_awake
from fsd_inference.config import RetrySettings
from fsd_inference.engine.launcher import ChildEnd
from fsd_inference.limits import WAKING_S
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


_RETRY = RetrySettings()


class LambdaLauncher:
    """Starts the children of a rank by asynchronous invocations of the worker function.

    It never calls `on_end`: the coordinator learns of failed ranks from Lambda's failure records.

    Parameters
    ----------
    client : boto3 client
        Lambda client with the SDK's retries turned off.
    function : str
        ARN of the worker function.
    event : RankEvent
        The event that started this rank; those of its children differ only in `rank` and `starter`.
    meter : UsageMeter
        Counts ``lambda.invoke``.
    """

    def __init__(self, client: LambdaClient, function: str, event: RankEvent, meter: UsageMeter) -> None:
        self._client = client
        self._function = function
        self._event = event
        self._meter = meter

    def start(self, rank: int, on_end: ChildEnd) -> None:  # noqa: ARG002 - see the class
        """Invoke the function that runs `rank`; see `engine.Launcher`."""
        invoke_rank(self._client, self._function, self._event.child(rank), self._meter)


def invoke_rank(client: LambdaClient, function: str, event: RankEvent, meter: UsageMeter) -> None:
    """Invoke a worker function asynchronously; raise `StackError` if Lambda does not accept the event."""
    payload = json.dumps(event.to_json()).encode()

    def invoke() -> None:
        request(
            "lambda.invoke",
            f"start rank {event.rank} with {function}",
            lambda: client.invoke(FunctionName=function, InvocationType="Event", Payload=payload),
            meter=meter,
            retry=_RETRY,
        )

    until_awake(invoke, function, limit_s=min(WAKING_S, event.spec.deadline - time.time()))
