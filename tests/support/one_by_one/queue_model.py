"""Simulation of the queue channel (SNS and SQS), request by request."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fsd_inference.channels.base import Expected
from fsd_inference.errors import ChannelError
from fsd_inference.forecast.frames import Batch, Outgoing, units
from fsd_inference.limits import BATCH_ENTRIES
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.token_bucket import share_of_publishing
from fsd_inference.usage import EACH_MESSAGE, RECEIVED_MESSAGES
from tests.support.one_by_one.listener import EventListener
from tests.support.one_by_one.ordered_bucket import OrderedBucket
from tests.support.one_by_one.rank import EventRank, Message
from tests.support.one_by_one.services import EventServices, HostServices


class Delivery(NamedTuple):
    """A message in flight to one rank: its (source, edge), and the size of its body in bytes."""

    target: int
    edge: tuple[int, int]
    size: float


def deliveries_of(outgoing: Outgoing, batch: Batch) -> list[Delivery]:
    """Return the messages that a batch delivers to its targets."""
    part = slice(batch.first, batch.last)
    places = (outgoing.places[edge] for edge in outgoing.edges[part].tolist())
    return [*map(Delivery, outgoing.targets[part].tolist(), places, outgoing.sizes[part].tolist())]


class QueueModel:
    """A model of SNS topics and SQS queues."""

    def __init__(
        self, services: EventServices, scenario: Scenario, ranks: list[EventRank], listener: EventListener
    ) -> None:
        timing = scenario.timing
        rate = timing["account.messages_per_s"]
        self._services, self._ranks, self._listener = services, ranks, listener
        self._account = OrderedBucket(rate, rate * timing["throttle.burst_s"])
        self._shares = [share_of_publishing(rate, len(ranks)) for _ in ranks]
        self._poll_s = scenario.limits.poll_s

    def send(self, rank: EventRank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        sent = outgoing.sent[rank.number]
        left = [len(sent.batches)]
        several = sent.frames > len(set(outgoing.edges[sent.first : sent.last].tolist()))

        def taken() -> None:
            left[0] -= 1
            if not left[0]:
                call(*rest)

        for batch in sent.batches:
            deliveries = deliveries_of(outgoing, batch)
            if several:
                self._expect_parts(key, deliveries)
            rank.senders.begin(self._pace, rank, batch, deliveries, key, 0, math.inf, taken)

    def _expect_parts(self, key: Expected, deliveries: list[Delivery]) -> None:
        """Tell the targets which edges arrive in several parts."""
        for target, edge, _ in deliveries:
            parts, place = self._ranks[target].parts, ((key.layer, key.micro_batch), edge)
            parts[place] = parts.get(place, 0) + 1

    def _pace(
        self,
        rank: EventRank,
        batch: Batch,
        deliveries: list[Delivery],
        key: Expected,
        tried: int,
        since: float,
        call: Callable[[], None],
    ) -> None:
        """Publish a batch when it is its turn in the rank's share."""
        now = self._services.clock.now
        due = now + self._shares[rank.number].wait_s(now, batch.messages)
        self._services.clock.at(due, self._publish, rank, batch, deliveries, key, tried + 1, min(since, due), call)

    def _publish(
        self,
        rank: EventRank,
        batch: Batch,
        deliveries: list[Delivery],
        key: Expected,
        tried: int,
        since: float,
        call: Callable[[], None],
    ) -> None:
        services = self._services
        services.count("sns.publish", batch.units, repeat=tried > 1)
        services.usage.billed_units[f"sns.publish{EACH_MESSAGE}"] += batch.message_units
        if self._account.admits(services.clock.now, batch.messages):
            messages = len(deliveries)
            services.send(rank, "publish", batch.size, 0.0, messages, self._published, rank, deliveries, key, call)
            return
        pause_s = services.pause_s(tried, services.clock.now - since)
        if pause_s is None:
            self._listener.failed(rank, ChannelError("SNS refused a publish too often (throttled)", retryable=True))
            return
        services.clock.at(services.clock.now + pause_s, self._pace, rank, batch, deliveries, key, tried, since, call)

    def _published(self, rank: EventRank, deliveries: list[Delivery], key: Expected, call: Callable[[], None]) -> None:
        rank.senders.end()
        call()
        services = self._services
        now, latency = services.clock.now, services.draws.latency
        step = key.layer, key.micro_batch
        for target, edge, size in deliveries:
            other, there = self._ranks[target], now + latency("deliver")
            heapq.heappush(other.pending, (there, step, edge, size))
            if other.is_waiting:
                self._wake(other, there)

    def listen(self, rank: EventRank) -> None:
        """See `ChannelModel`."""
        if rank.is_polling or not (rank.worker.wanted() or rank.worker.gathers()):
            return
        rank.is_polling = rank.is_waiting = True
        rank.polled_at, rank.wakes_at = self._services.clock.now, math.inf
        if rank.pending:
            self._wake(rank, rank.pending[0][0])

    def _wake(self, rank: EventRank, there: float) -> None:
        due = max(there, rank.polled_at)
        if due < rank.wakes_at:
            rank.wakes_at = due
            self._services.clock.at(due, self._found, rank, due)

    def _found(self, rank: EventRank, due: float) -> None:
        if not rank.is_waiting or due != rank.wakes_at:
            return
        messages, size = self._taken(rank)
        self._services.send(rank, "receive", 0.0, size, len(messages), self._received, rank, messages)

    def _taken(self, rank: EventRank) -> tuple[list[Message], float]:
        """Return the messages of a poll and their bytes; count the poll and the empty ones before it."""
        services, now = self._services, self._services.clock.now
        messages: list[Message] = []
        while rank.pending and rank.pending[0][0] <= now and len(messages) < BATCH_ENTRIES:
            messages.append(heapq.heappop(rank.pending))
        empty = int((now - rank.polled_at) / self._poll_s)
        size = sum(message[3] for message in messages)
        services.usage.empty_polls += empty
        services.usage.requests["sqs.receive"] += empty
        services.usage.billed_units["sqs.receive"] += empty
        services.usage.received_bytes += round(size)
        services.count("sqs.receive", units(size))
        services.usage.billed_units[RECEIVED_MESSAGES] += sum(units(message[3]) for message in messages)
        rank.is_waiting = False
        return messages, size

    def _received(self, rank: EventRank, messages: list[Message]) -> None:
        rank.is_polling = False
        self._listener.came(rank, messages)
        self.listen(rank)


class EmulatedQueueModel(QueueModel):
    """A model of an emulator's queues on the host: a waiting receive request checks its queue at fixed intervals."""

    def __init__(
        self,
        services: HostServices,
        scenario: Scenario,
        ranks: list[EventRank],
        listener: EventListener,
        tick_s: float,
    ) -> None:
        super().__init__(services, scenario, ranks, listener)
        self._host, self._tick_s = services, tick_s

    def listen(self, rank: EventRank) -> None:
        """See `ChannelModel`."""
        if rank.is_polling or not (rank.worker.wanted() or rank.worker.gathers()):
            return
        rank.is_polling = True
        rank.polled_at = self._services.clock.now
        self._host.ask_to_receive(rank, self._look, rank)

    def _look(self, rank: EventRank) -> None:
        self._host.look(rank.hidden, self._looked, rank)

    def _looked(self, rank: EventRank) -> None:
        services, now = self._services, self._services.clock.now
        if not rank.pending or rank.pending[0][0] > now:
            if not rank.worker.finished:
                services.clock.at(now + self._tick_s, self._look, rank)
            return
        messages, size = self._taken(rank)
        rank.hidden += len(messages)
        self._host.hand(rank, len(messages), size, self._received, rank, messages)
