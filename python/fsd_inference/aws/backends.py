"""Opening the buckets of a stack, and a rank's channel over those buckets or over a lane of queues."""

from __future__ import annotations

from collections.abc import Sequence

from fsd_inference.aws.clients import Clients
from fsd_inference.channels.base import Channel
from fsd_inference.channels.in_process import InProcessHub
from fsd_inference.channels.object import ObjectChannel, ObjectSettings
from fsd_inference.channels.queue import QueueChannel, QueueSettings
from fsd_inference.config import RetrySettings
from fsd_inference.engine.rank import Backends
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import SettingError
from fsd_inference.limits import RANKS_PER_TOPIC
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.usage import UsageMeter


def open_aws_backends(
    clients: Clients, stack: StackSpec, channel: str, *, spec: RunSpec, rank: int, lane: int | None
) -> Backends:
    """Open a stack's buckets and one rank's channel; closing the result also closes `clients`.

    Parameters
    ----------
    clients, stack
        The stack, and clients of its services.
    channel, spec, rank, lane
        See `open_channel`.
    """
    runs, plans = open_buckets(clients, stack, UsageMeter())

    def release() -> None:
        for store in (*runs, plans):
            store.close()
        clients.close()

    frames = open_channel(clients, stack, runs, channel, spec=spec, rank=rank, lane=lane)
    return Backends(plans, runs[0], frames, release)


def open_buckets(clients: Clients, stack: StackSpec, meter: UsageMeter) -> tuple[list[Store], Store]:
    """Open a stack's run buckets and its network bucket; `meter` counts the requests of all of them.

    Bucket names are global: another account may own a name whose bucket was deleted.
    """
    runs = [clients.open_bucket(bucket, owner=stack.account, meter=meter) for bucket in stack.run_buckets]
    return runs, clients.open_bucket(stack.network_bucket, owner=stack.account, meter=meter)


def open_channel(
    clients: Clients,
    stack: StackSpec,
    runs: Sequence[Store],
    channel: str,
    *,
    spec: RunSpec,
    rank: int,
    lane: int | None,
) -> Channel:
    """Open one rank's channel.

    Parameters
    ----------
    clients, stack
        The stack, and clients of its services. The caller closes them, and also `runs`.
    runs : sequence of Store
        The run buckets.
    channel : {"serial", "queue", "object"}
        "serial" is for a single rank, which exchanges nothing.
    spec, rank
        The attempt, and the rank whose channel to open.
    lane : int, optional
        The lane that the attempt holds, for "queue".

    Raises
    ------
    SettingError
        The stack has no such lane, or the channel does not fit the number of workers.
    """
    workers = spec.settings.workers
    if channel == "serial" and workers == 1:
        return InProcessHub(1).channel(0)
    if channel == "object":
        settings = ObjectSettings(retry=RetrySettings(throttled_s=spec.settings.clocks.stall_s))
        return ObjectChannel(runs, run=spec.run, attempt=spec.attempt, rank=rank, workers=workers, settings=settings)
    if channel != "queue" or lane is None or lane >= len(stack.lanes):
        raise SettingError(f"channel {channel!r} of {workers} workers cannot be opened on stack {stack.name}")
    return QueueChannel(
        clients.topics,
        clients.queues,
        topics=stack.lanes[lane].topic_arns[: -(-workers // RANKS_PER_TOPIC)],
        queue_url=stack.lanes[lane].queue_urls[rank],
        workers=workers,
        settings=QueueSettings(
            message_bytes=stack.message_bytes,
            publish_per_s=stack.publish_per_s,
            retry=RetrySettings(throttled_s=spec.settings.clocks.stall_s),
        ),
    )
