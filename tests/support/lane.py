"""A lane (topics, queues and subscriptions) on the emulator, for the queue channel."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass

from fsd_inference.aws.clients import Clients
from fsd_inference.channels.queue import ALL, QueueChannel, QueueSettings
from fsd_inference.limits import RANKS_PER_TOPIC

_numbers = itertools.count()


@dataclass
class Lane:
    workers: int
    topics: list[str]
    queues: dict[int, str]

    @classmethod
    def make(cls, clients: Clients, workers: int, ranks: Iterable[int] | None = None) -> Lane:
        """Create the topics of all ranks, and the subscribed queues of `ranks` (default: all)."""
        name = f"lane-{next(_numbers)}"
        blocks = range((workers - 1) // RANKS_PER_TOPIC + 1)
        topics = [clients.sns.create_topic(Name=f"{name}-{block}")["TopicArn"] for block in blocks]
        queues = {}
        for rank in ranks if ranks is not None else range(workers):
            attributes = {"VisibilityTimeout": "3600", "MessageRetentionPeriod": "3600"}
            url = clients.sqs.create_queue(QueueName=f"{name}-rank-{rank}", Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
            arn = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
            clients.sns.subscribe(
                TopicArn=topics[rank // RANKS_PER_TOPIC],
                Protocol="sqs",
                Endpoint=arn,
                Attributes={
                    "RawMessageDelivery": "true",
                    "FilterPolicy": json.dumps({"to": [str(rank), ALL]}),
                },
            )
            queues[rank] = url
        return cls(workers, topics, queues)

    def channel(self, clients: Clients, rank: int, settings: QueueSettings | None = None) -> QueueChannel:
        return QueueChannel(
            clients.topics,
            clients.queues,
            topics=self.topics,
            queue_url=self.queues[rank],
            workers=self.workers,
            settings=settings,
        )
