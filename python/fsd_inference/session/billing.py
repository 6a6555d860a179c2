"""Comparison of what a verification's runs counted with what CloudWatch counted of the same stack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fsd_inference.aws.billing import EMPTY_RECEIVES, FUNCTION_S, INVOCATIONS, PUBLISHED, counted
from fsd_inference.errors import NotAllowedError, SettingError
from fsd_inference.report.verification import Comparison, Verification

if TYPE_CHECKING:
    from fsd_inference.aws.billing import MetricsClient


def compare_bill(record: Verification, client: MetricsClient) -> str | None:
    """Set the record's bill; return a sentence that names the missing permission, or None if nothing was denied.

    Parameters
    ----------
    record : Verification
        A verification with at least one run that was carried out.
    client : MetricsClient
        boto3's ``cloudwatch`` client in the region of its stack.

    Raises
    ------
    SettingError
        Nothing was run.
    StackError
        CloudWatch did not answer.
    """
    if record.stack is None or not record.totals:
        raise SettingError("nothing was run in this verification, so there is nothing to compare")
    try:
        record.bill = list(_lines(record, client))
    except NotAllowedError as error:
        return str(error)
    return None


def _lines(record: Verification, client: MetricsClient) -> Iterator[Comparison]:
    assert record.stack is not None  # noqa: S101 - checked by the caller
    functions, topics, queues = record.stack.functions, record.stack.topics, record.stack.queues
    for what, total, metric, names in (
        ("invocations", "invocations", INVOCATIONS, functions),
        ("function time without init, s", "function_s", FUNCTION_S, functions),
        ("SNS messages (the runs count units of 64 KiB)", "sns_units", PUBLISHED, topics),
        ("empty SQS receives", "empty_receives", EMPTY_RECEIVES, queues),
    ):
        found = counted(client, metric, names, record.began, record.ended)
        yield Comparison(what, record.totals.get(total, 0.0), found)
