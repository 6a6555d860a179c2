"""Ranks as invocations of a Lambda function, each by its parent in the launch tree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fsd_inference.aws.clients import request
from fsd_inference.aws.events import RankEvent
from fsd_inference.config import RetrySettings
from fsd_inference.engine.launcher import ChildEnd
from fsd_inference.usage import UsageMeter

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

_RETRY = RetrySettings()


class LambdaLauncher:
    """Starts ranks by asynchronous invocations of the worker function.

    A rank that ends badly is not seen from here: the coordinator hears of it from Lambda.

    Parameters
    ----------
    client : boto3 client
        Of Lambda, with the SDK's retries off.
    function : str
        ARN of the worker function.
    event : RankEvent
        What started this rank; its children get the same but for their ranks.
    meter : UsageMeter
        Counts ``lambda.invoke``.
    """

    def __init__(self, client: LambdaClient, function: str, event: RankEvent, meter: UsageMeter) -> None:
        self._client = client
        self._function = function
        self._event = event
        self._meter = meter

    def start(self, rank: int, on_end: ChildEnd) -> None:  # noqa: ARG002 - see the class
        """Start `rank`; see `engine.Launcher`."""
        invoke_rank(self._client, self._function, self._event.child(rank), self._meter)


def invoke_rank(client: LambdaClient, function: str, event: RankEvent, meter: UsageMeter) -> None:
    """Invoke a worker function asynchronously; `StackError` if Lambda does not take the event."""
    payload = json.dumps(event.to_json()).encode()
    request(
        "lambda.invoke",
        f"start rank {event.rank} with {function}",
        lambda: client.invoke(FunctionName=function, InvocationType="Event", Payload=payload),
        meter=meter,
        retry=_RETRY,
    )
