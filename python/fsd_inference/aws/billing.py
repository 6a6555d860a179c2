"""What CloudWatch counted of a stack's functions, topics and queues in a period, without reading any bill.

Metric names: the developer guides of Lambda, SNS and SQS, 2026-11. SNS reports every five minutes, so periods are
widened to whole ones. Cost Explorer is not asked: it bills each request USD 0.01 (AWS Cost Explorer pricing, 2026-11),
more than the runs cost, and adds up whole days of the account.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from botocore.exceptions import ClientError

from fsd_inference.aws.clients import refusal
from fsd_inference.aws.sdk import SDK_ERRORS, text_of
from fsd_inference.errors import StackError

_PERIOD_S = 300
_ACTION = "cloudwatch:GetMetricStatistics"


class MetricsClient(Protocol):
    """The part of boto3's ``cloudwatch`` client that is used."""

    def get_metric_statistics(self, **request: Any) -> Mapping[str, Any]:
        """Return the ``Datapoints`` of a metric, each with the statistics that were asked for."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A CloudWatch metric of a kind of resources: its namespace, name, dimension, and what its unit is divided by."""

    namespace: str
    name: str
    dimension: str
    divisor: float = 1.0


INVOCATIONS = Metric("AWS/Lambda", "Invocations", "FunctionName")
FUNCTION_S = Metric("AWS/Lambda", "Duration", "FunctionName", 1000.0)  # in milliseconds, without the init phase
PUBLISHED = Metric("AWS/SNS", "NumberOfMessagesPublished", "TopicName")
EMPTY_RECEIVES = Metric("AWS/SQS", "NumberOfEmptyReceives", "QueueName")


def counted(client: MetricsClient, metric: Metric, names: Iterable[str], began: float, ended: float) -> float:
    """Return the sum of a metric over resources and a period.

    Parameters
    ----------
    client : MetricsClient
        boto3's ``cloudwatch`` client in the region of the stack.
    metric : Metric
    names : iterable of str
        Names of the functions, topics or queues.
    began, ended : float
        The period in seconds since the epoch; widened to whole five minutes.

    Raises
    ------
    NotAllowedError
        A policy does not allow ``cloudwatch:GetMetricStatistics``.
    StackError
        CloudWatch refused the request or did not answer.
    """
    start = math.floor(began / _PERIOD_S) * _PERIOD_S
    end = (math.floor(ended / _PERIOD_S) + 1) * _PERIOD_S
    total = 0.0
    for name in names:
        what = f"read {metric.namespace} {metric.name} of {name}"
        try:
            answer = client.get_metric_statistics(
                Namespace=metric.namespace,
                MetricName=metric.name,
                Dimensions=[{"Name": metric.dimension, "Value": name}],
                StartTime=datetime.fromtimestamp(start, UTC),
                EndTime=datetime.fromtimestamp(end, UTC),
                Period=_PERIOD_S,
                Statistics=["Sum"],
            )
        except ClientError as error:
            raise refusal(what, error, _ACTION) from error
        except SDK_ERRORS as error:
            raise StackError(f"cannot {what}: {text_of(error)}") from error
        total += sum(point["Sum"] for point in answer["Datapoints"])
    return total / metric.divisor
