"""Probes of lanes: test messages that check whether SNS delivers each message to its own queue and to no other.

SNS applies the filter policies of new subscriptions within 15 minutes. Until then, queues miss messages or receive
those of other ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from uuid import uuid4

from fsd_inference.aws.clients import Clients, request
from fsd_inference.channels.queue import ALL
from fsd_inference.config import RetrySettings
from fsd_inference.errors import StackError
from fsd_inference.limits import BATCH_ENTRIES, RANKS_PER_TOPIC
from fsd_inference.stack_description import LaneSpec
from fsd_inference.threads import ThreadPool
from fsd_inference.usage import UsageMeter

_RETRY = RetrySettings(attempts=3)
_RECEIVE_S = 2
_ROUNDS = 5
"""Receive requests per queue before a missing message counts as lost."""
_THREADS = 32
PROBES = 2
"""Messages that each queue gets from a probe: one for its rank, and one for all ranks."""


def probe_lane(clients: Clients, lane: LaneSpec, meter: UsageMeter) -> list[str]:
    """Send a message to each rank of a lane and one to all ranks; return a line for each queue with a problem.

    The caller must hold the lane during the probe, and purge it afterwards if there was a problem. Ranks drop probe
    messages, which are not valid frames.

    Raises
    ------
    StackError
        A topic or queue refused a request.
    """
    nonce = uuid4().hex
    bodies = {str(rank): f"probe-{nonce}-{rank}" for rank in range(len(lane.queue_urls))}
    with ThreadPool(_THREADS) as threads:
        sends: list[Callable[[], None]] = []
        for block, arn in enumerate(lane.topic_arns):
            ranks = range(block * RANKS_PER_TOPIC, min((block + 1) * RANKS_PER_TOPIC, len(lane.queue_urls)))
            messages = [(str(rank), bodies[str(rank)]) for rank in ranks] + [(ALL, f"probe-{nonce}-{ALL}")]
            batches = [messages[first : first + BATCH_ENTRIES] for first in range(0, len(messages), BATCH_ENTRIES)]
            sends += [partial(_publish, clients, arn, batch, meter) for batch in batches]
        list(threads.map(lambda send: send(), sends))
        looks = [
            threads.submit(_look, clients, url, nonce, {bodies[str(rank)], f"probe-{nonce}-{ALL}"}, meter)
            for rank, url in enumerate(lane.queue_urls)
        ]
        found = [look.result() for look in looks]
    return [problem for problem in found if problem is not None]


def _publish(clients: Clients, arn: str, messages: Sequence[tuple[str, str]], meter: UsageMeter) -> None:
    entries = [
        {
            "Id": str(number),
            "Message": body,
            "MessageAttributes": {"to": {"DataType": "String.Array", "StringValue": json.dumps([to])}},
        }
        for number, (to, body) in enumerate(messages)
    ]
    answer = request(
        "sns.publish",
        f"publish to topic {arn}",
        lambda: clients.sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=entries),  # type: ignore[arg-type]
        meter=meter,
        retry=_RETRY,
        action="sns:Publish",
    )
    if answer.get("Failed"):
        raise StackError(f"topic {arn} refused a message: {answer['Failed'][0].get('Message', '')}")


def _look(clients: Clients, url: str, nonce: str, own: set[str], meter: UsageMeter) -> str | None:
    """Receive the probe messages of a queue and return a description of the problem, or None if all is well."""
    got: set[str] = set()
    for wait_s in (_RECEIVE_S,) * _ROUNDS:
        before = len(got)
        answer = request(
            "sqs.receive",
            f"receive from queue {url}",
            partial(_receive, clients, url, wait_s),
            meter=meter,
            retry=_RETRY,
            action="sqs:ReceiveMessage",
        )
        got.update(answer)
        if own <= got and len(got) == before:  # all own messages are here, and one more receive brought nothing new
            break
    wrapped = [body for body in got - own if nonce in body and not body.startswith("probe-")]
    foreign = [body for body in got - own if body.startswith(f"probe-{nonce}")]
    name = url.rpartition("/")[2]
    if wrapped:
        return f"queue {name} receives messages wrapped in JSON: its subscription needs RawMessageDelivery"
    if foreign:
        return f"queue {name} receives messages for others: the filter of its subscription is not in effect (yet)"
    if not own <= got:
        missing = len(own - got)
        return (
            f"queue {name} misses {missing} of {len(own)} messages: its subscription or policy is not in effect (yet)"
        )
    return None


def _receive(clients: Clients, url: str, wait_s: int) -> set[str]:
    answer = clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait_s)
    return {message["Body"] for message in answer.get("Messages", [])}
