"""A check that the topics, queues and buckets of a stack match its description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fsd_inference.aws.clients import Clients, request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import StackError
from fsd_inference.limits import MESSAGE_BYTES
from fsd_inference.stack_description import StackSpec
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

_THREADS = 16
_RETRY = RetrySettings(attempts=3)
_ACTIONS = {"s3": "s3:ListBucket", "sns": "sns:GetTopicAttributes", "sqs": "sqs:GetQueueAttributes"}


def check_stack(clients: Clients, stack: StackSpec, *, meter: UsageMeter | None = None) -> None:
    """Raise `StackError` if a topic, queue or bucket of a stack does not match its description, naming the first."""
    problems, count = stack_problems(clients, stack, meter or UsageMeter())
    if problems:
        raise StackError(
            f"stack {stack.name} does not match its description ({len(problems)} of {count} resources): {problems[0]}"
            + ("" if problems[0].retryable else "; delete the stack and create it again"),
            retryable=problems[0].retryable,
        )


def stack_problems(clients: Clients, stack: StackSpec, meter: UsageMeter) -> tuple[list[StackError], int]:
    """Check every topic, queue and bucket of a stack, with one request each.

    Returns
    -------
    list of StackError
        One for each resource that is missing or could not be checked, for each topic or queue that takes smaller
        messages than the stack's, and for each queue whose visibility timeout or retention is shorter than the longest
        run.
    int
        The total number of resources.
    """

    def topic(arn: str) -> None:
        answer: Mapping[str, Any] = clients.sns.get_topic_attributes(TopicArn=arn)
        # SNS returns the attribute only if it was set (GetTopicAttributes).
        _check_size(stack, f"topic {arn}", int(answer["Attributes"].get("MaximumMessageSize", MESSAGE_BYTES)))

    def queue(url: str) -> None:
        names = ["VisibilityTimeout", "MessageRetentionPeriod"]
        answer: Mapping[str, Any] = clients.sqs.get_queue_attributes(
            QueueUrl=url,
            AttributeNames=[*names, "MaximumMessageSize"],  # type: ignore[list-item]
        )
        _check_size(stack, f"queue {url}", int(answer["Attributes"]["MaximumMessageSize"]))
        for name in names:
            seconds = int(answer["Attributes"][name])
            if seconds < stack.longest_run_s:
                raise StackError(
                    f"the {name} of queue {url} is {seconds} s, less than longest_run_s ({stack.longest_run_s:g} s)"
                )

    def bucket(name: str) -> None:
        clients.s3.head_bucket(Bucket=name)

    def problem(kind: str, look: Callable[[str], None], name: str) -> StackError | None:
        try:
            request(
                f"{kind}.manage",
                f"find {look.__name__} {name}",
                partial(look, name),
                meter=meter,
                retry=_RETRY,
                action=_ACTIONS[kind],
            )
        except StackError as error:
            return error
        return None

    with ThreadPool(_THREADS) as threads:
        futures = [threads.submit(problem, "s3", bucket, name) for name in (*stack.run_buckets, stack.network_bucket)]
        for lane in stack.lanes:
            futures += [threads.submit(problem, "sns", topic, arn) for arn in lane.topic_arns]
            futures += [threads.submit(problem, "sqs", queue, url) for url in lane.queue_urls]
        problems = [found for found in (future.result() for future in futures) if found is not None]
    return problems, len(futures)


def _check_size(stack: StackSpec, what: str, largest: int) -> None:
    """Raise `StackError` if the largest message of a topic or queue, in bytes, is smaller than the stack's."""
    if largest < stack.message_bytes:
        raise StackError(
            f"the MaximumMessageSize of {what} is {largest} bytes, less than message_bytes ({stack.message_bytes})"
        )
