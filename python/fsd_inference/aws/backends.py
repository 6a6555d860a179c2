"""What the ranks of a run on a stack share: buckets, and a channel over them or over a lane of queues."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fsd_inference.aws.clients import Clients
from fsd_inference.aws.stack import load_stack
from fsd_inference.channels.object import ObjectChannel
from fsd_inference.channels.queue import QueueChannel, QueueSettings
from fsd_inference.engine.rank import Backends
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import SettingError
from fsd_inference.records import RANKS_PER_TOPIC, StackSpec, UsageMeter
from fsd_inference.store.base import Store


def open_aws_backends(channel: str, path: Path, *, spec: RunSpec, rank: int, lane: int | None) -> Backends:
    """Open a stack's buckets and one rank's channel.

    Parameters
    ----------
    channel : {"queue", "object"}
    path : Path
        The ``stack.json``.
    spec, rank
        The attempt, and whose channel to open.
    lane : int, optional
        The lane that the attempt holds, for "queue".
    """
    stack = load_stack(path)
    clients = Clients.of_stack(stack)
    meter = UsageMeter()
    runs, plans = open_buckets(clients, stack, meter)
    if channel == "object":
        objects = ObjectChannel(runs, run=spec.run, attempt=spec.attempt, rank=rank, workers=spec.settings.workers)
        return Backends(plans, runs[0], objects, _closing(clients, runs, plans))
    if channel != "queue" or lane is None:
        raise SettingError(f"channel {channel!r} cannot be opened on a stack without a lane")
    queues = QueueChannel(
        clients.sns,
        clients.sqs,
        topics=stack.lanes[lane].topic_arns[: -(-spec.settings.workers // RANKS_PER_TOPIC)],
        queue_url=stack.lanes[lane].queue_urls[rank],
        workers=spec.settings.workers,
        settings=QueueSettings(message_bytes=stack.message_bytes),
    )
    return Backends(plans, runs[0], queues, _closing(clients, runs, plans))


def open_buckets(clients: Clients, stack: StackSpec, meter: UsageMeter) -> tuple[list[Store], Store]:
    """Open the buckets of the runs, and that of the networks, counting together."""
    runs = [clients.open_bucket(bucket, meter=meter) for bucket in stack.run_buckets]
    return runs, clients.open_bucket(stack.network_bucket, meter=meter)


def _closing(clients: Clients, runs: list[Store], plans: Store) -> Callable[[], None]:
    def close() -> None:
        for store in (*runs, plans):
            store.close()
        clients.close()

    return close
