"""Requests to services, and the channels over them: what they take, and what they count."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.config import RetrySettings
from fsd_inference.cost.frames import units
from fsd_inference.cost.simulator.clock import Clock
from fsd_inference.cost.simulator.rank import Message, Rank
from fsd_inference.cost.simulator.resources import Draws, Processors, Rate, Server
from fsd_inference.cost.simulator.scenario import Scenario
from fsd_inference.cost.simulator.traffic import Batch, Delivery, Outgoing, Reader
from fsd_inference.cost.work import Speed
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.records import EACH_MESSAGE, Usage

MESSAGES_A_POLL = 10  # ReceiveMessage (SQS API)
FOLDERS = 16  # prefixes of a bucket that objects are spread over (channels/object.py)
_ABORT_EVERY_S = 1.0  # channels/object.py


class Listener(Protocol):
    """Hears what channels bring."""

    def came(self, rank: Rank, messages: list[Message]) -> None:
        """Hand messages, each a frame, to a rank."""

    def came_all(self, rank: Rank, step: Step) -> None:
        """Say that all that a rank needs for a step has come."""

    def failed(self, rank: Rank, error: ChannelError) -> None:
        """Say that a request was refused too often."""


class Services:
    """What ranks ask of services.

    Parameters
    ----------
    scenario : Scenario
    clock, draws, processors, server
        Time, chance, and where the work of a request is done.

    Attributes
    ----------
    usage : Usage
        What was counted.
    """

    def __init__(
        self, scenario: Scenario, clock: Clock, draws: Draws, processors: Processors, server: Server, speed: Speed
    ) -> None:
        timing = scenario.timing
        self.clock, self.draws, self.processors = clock, draws, processors
        self.usage = Usage()
        self.retry = RetrySettings()
        self._server = server
        self._request_s = timing["cpu.request_s"] / speed.one
        self._message_s = timing["cpu.message_s"] / speed.one
        self._byte_s = 1 / timing["cpu.body_bytes_per_s"] / speed.one
        self._connection = timing["connection.bytes_per_s"]
        self._served_s = timing["server.request_s"], timing["server.message_s"]

    def request(
        self, rank: Rank, latency: str, up: float, down: float, messages: int, call: Callable[..., None], *rest: Any
    ) -> None:
        """Call when a request has been answered: `up` and `down` are bytes of bodies."""
        work = (self._request_s + messages * self._message_s + (up + down) * self._byte_s) / rank.speed
        self.processors.run(work, self._ask, rank, latency, up, down, messages, call, rest)

    def request_s(self, rank: Rank, latency: str, up: float, down: float, messages: int, start: float) -> float:
        """Return how long a request takes that is begun at `start`, where processors are the rank's own."""
        work = (self._request_s + messages * self._message_s + (up + down) * self._byte_s) / rank.speed
        begun = start + work
        passing = max((up + down) / self._connection, rank.up.pass_s(begun, up), rank.down.pass_s(begun, down))
        return work + self.draws.latency(latency) + passing

    def _ask(
        self,
        rank: Rank,
        latency: str,
        up: float,
        down: float,
        messages: int,
        call: Callable[..., None],
        rest: tuple[Any, ...],
    ) -> None:
        served = self._served_s[0] + messages * self._served_s[1]
        self._server.serve(served, self._answer, rank, latency, up, down, call, rest)

    def _answer(
        self, rank: Rank, latency: str, up: float, down: float, call: Callable[..., None], rest: tuple[Any, ...]
    ) -> None:
        now = self.clock.now
        passing = max((up + down) / self._connection, rank.up.pass_s(now, up), rank.down.pass_s(now, down))
        self.clock.at(now + self.draws.latency(latency) + passing, call, *rest)

    def count(self, kind: str, billed: int = 1, *, repeat: bool = False) -> None:
        """Count a request."""
        self.usage.requests[kind] += 1
        self.usage.billed_units[kind] += billed
        self.usage.retries += repeat

    def pause_s(self, tried: int) -> float | None:
        """Return how long to pause after a request was refused for the `tried`-th time; None: give up."""
        if tried >= self.retry.attempts:
            return None
        longest = self.retry.base_s * 2.0 ** (tried - 1)
        return self.draws.uniform() * min(self.retry.cap_s, longest)


class ChannelModel(Protocol):
    """A channel as the simulator has it."""

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """Send what a rank sends of a step; call when the service has taken it."""

    def listen(self, rank: Rank) -> None:
        """Receive for a rank while its state machine wants something."""


class QueueModel:
    """SNS topics and SQS queues."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        timing = scenario.timing
        rate = timing["topic.messages_per_s"]
        self._services, self._ranks, self._listener = services, ranks, listener
        self._topics = [
            Rate(rate, rate * timing["throttle.burst_s"])
            for _ in range(math.ceil(len(ranks) / scenario.limits.ranks_a_topic))
        ]
        self._tick_s = timing["poll.tick_s"]
        self._poll_s = scenario.limits.poll_s
        self._polls: Counter[int] = Counter()

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        sent = outgoing.sent[rank.number]
        left = [len(sent.batches)]
        several = sent.frames > len(set(outgoing.edges[sent.batches[0].first : sent.batches[-1].last].tolist()))

        def taken() -> None:
            left[0] -= 1
            if not left[0]:
                call(*rest)

        for batch in sent.batches:
            deliveries = outgoing.deliveries(batch)
            if several:
                self._expect_parts(key, deliveries)
            rank.senders.begin(self._publish, rank, batch, deliveries, key, 1, taken)

    def _expect_parts(self, key: Expected, deliveries: list[Delivery]) -> None:
        """Note at the targets which edges come in several parts."""
        for target, edge, _ in deliveries:
            parts, place = self._ranks[target].parts, ((key.layer, key.micro_batch), edge)
            parts[place] = parts.get(place, 0) + 1

    def _publish(
        self,
        rank: Rank,
        batch: Batch,
        deliveries: list[Delivery],
        key: Expected,
        tried: int,
        call: Callable[[], None],
    ) -> None:
        services = self._services
        services.count("sns.publish", batch.units, repeat=tried > 1)
        services.usage.billed_units[f"sns.publish{EACH_MESSAGE}"] += batch.message_units
        if self._topics[batch.topic].admits(services.clock.now, batch.messages):
            messages = len(deliveries)
            services.request(rank, "publish", batch.size, 0.0, messages, self._published, rank, deliveries, key, call)
            return
        pause_s = services.pause_s(tried)
        if pause_s is None:
            self._listener.failed(rank, ChannelError("SNS refused a publish too often (throttled)", retryable=True))
            return
        services.clock.at(services.clock.now + pause_s, self._publish, rank, batch, deliveries, key, tried + 1, call)

    def _published(self, rank: Rank, deliveries: list[Delivery], key: Expected, call: Callable[[], None]) -> None:
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

    def listen(self, rank: Rank) -> None:
        """See `ChannelModel`."""
        if rank.is_polling or not (rank.worker.wanted() or rank.worker.gathers()):
            return
        rank.is_polling = rank.is_waiting = True
        rank.polled_at, rank.wakes_at = self._services.clock.now, math.inf
        if rank.pending:
            self._wake(rank, rank.pending[0][0])

    def _wake(self, rank: Rank, there: float) -> None:
        due = max(there, rank.polled_at)
        if self._tick_s:
            due = rank.polled_at + math.ceil((due - rank.polled_at) / self._tick_s) * self._tick_s
        if due < rank.wakes_at:
            rank.wakes_at = due
            self._services.clock.at(due, self._found, rank, due)

    def _found(self, rank: Rank, due: float) -> None:
        if not rank.is_waiting or due != rank.wakes_at:
            return
        services, now = self._services, self._services.clock.now
        messages: list[Message] = []
        while rank.pending and rank.pending[0][0] <= now and len(messages) < MESSAGES_A_POLL:
            messages.append(heapq.heappop(rank.pending))
        empty = int((now - rank.polled_at) / self._poll_s)
        size = sum(message[3] for message in messages)
        services.usage.empty_polls += empty
        services.usage.requests["sqs.receive"] += empty
        services.usage.billed_units["sqs.receive"] += empty
        services.usage.received_bytes += round(size)
        services.count("sqs.receive", units(size))
        rank.is_waiting = False
        services.request(rank, "receive", 0.0, size, len(messages), self._received, rank, messages)

    def _received(self, rank: Rank, messages: list[Message]) -> None:
        rank.is_polling = False
        self._listener.came(rank, messages)
        self.listen(rank)


class ObjectModel:
    """S3: an object a step and source, looked for as the channel does."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        timing = scenario.timing
        self._services, self._ranks, self._listener = services, ranks, listener
        puts, gets, burst_s = timing["prefix.puts_per_s"], timing["prefix.gets_per_s"], timing["throttle.burst_s"]
        prefixes = range(FOLDERS * scenario.buckets)
        self._puts = [Rate(puts, puts * burst_s) for _ in prefixes]
        self._gets = [Rate(gets, gets * burst_s) for _ in prefixes]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        sent = outgoing.sent[rank.number]

        def written() -> None:
            now = self._services.clock.now
            for reader in sent.readers:
                self._ranks[reader.target].visible[key] = now, reader
            rank.writers.end()
            call(*rest)

        rank.writers.begin(self._ask, rank, "put", self._puts, key, sent.wire_bytes, 0.0, 1, written)

    def _ask(
        self,
        rank: Rank,
        verb: str,
        rates: list[Rate],
        key: Expected,
        up: float,
        down: float,
        tried: int,
        call: Callable[[], None],
    ) -> None:
        services = self._services
        services.count(f"s3.{verb}", repeat=tried > 1)
        # Any spread will do that is the same in each run.
        rate = rates[(key.source * 31 + key.layer * 7 + key.micro_batch * 3 + key.kind) % len(rates)]
        if rate.admits(services.clock.now):
            services.request(rank, verb, up, down, 0, call)
            return
        pause_s = services.pause_s(tried)
        if pause_s is None:
            self._listener.failed(rank, ChannelError(f"S3 refused a {verb} too often (throttled)", retryable=True))
            return
        services.clock.at(services.clock.now + pause_s, self._ask, rank, verb, rates, key, up, down, tried + 1, call)

    def listen(self, rank: Rank) -> None:
        """See `ChannelModel`."""
        if not rank.is_looking and (rank.worker.wanted() or rank.worker.gathers()):
            rank.is_looking = True
            rank.abort_due = max(rank.abort_due, self._services.clock.now + _ABORT_EVERY_S)
            self._look(rank)

    def _look(self, rank: Rank) -> None:
        """Poll the source that is expected last when that is due; in between, look for an abort now and then."""
        missing = [item for item in rank.worker.expected() if item not in rank.read and item.kind is not Kind.ABORT]
        if not missing:
            rank.is_looking = False
            return
        clock, first = self._services.clock, missing[0]
        step = first.layer, first.micro_batch
        items = {item.source: item for item in missing if (item.layer, item.micro_batch) == step}
        pace = rank.paces[first.kind]
        pace.begin(step)
        last = pace.choose(items)
        due = max(clock.now, pace.poll_at(last))
        if rank.abort_due <= due:
            clock.at(rank.abort_due, self._look_for_abort, rank, first)
        else:
            clock.at(due, self._poll, rank, items, last)

    def _look_for_abort(self, rank: Rank, any_key: Expected) -> None:
        self._services.usage.misses += 1
        rank.abort_due = self._services.clock.now + _ABORT_EVERY_S
        self._ask(rank, "get", self._gets, any_key, 0.0, 0.0, 1, lambda: self._look(rank))

    def _poll(self, rank: Rank, items: dict[int, Expected], last: int) -> None:
        self._read(rank, items[last], lambda found: self._polled(rank, items, last, found))

    def _read(self, rank: Rank, key: Expected, call: Callable[[Reader | None], None]) -> None:
        """Read an object, and what of it lies beyond the first read."""
        there = rank.visible.get(key)
        if there is None:
            self._services.usage.misses += 1
            self._ask(rank, "get", self._gets, key, 0.0, 0.0, 1, lambda: call(None))
            return
        reader = there[1]
        left = [reader.reads]

        def again() -> None:
            left[0] -= 1
            if left[0]:
                self._ask(rank, "get", self._gets, key, 0.0, 0.0, 1, again)
            else:
                self._services.usage.received_bytes += round(reader.size)
                call(reader)

        self._ask(rank, "get", self._gets, key, 0.0, reader.size, 1, again)

    def _polled(self, rank: Rank, items: dict[int, Expected], last: int, found: Reader | None) -> None:
        now = self._services.clock.now
        pace = rank.paces[items[last].kind]
        if found is None:
            pace.missed(last, now)
            self._look(rank)
            return
        readers: dict[int, Reader | None] = {last: found}

        def read(source: int, reader: Reader | None) -> None:
            rank.readers.end()
            readers[source] = reader
            if len(readers) == len(items):
                self._have(rank, items, last, now, {source: it for source, it in readers.items() if it is not None})

        others = [source for source in items if source != last]
        if not others:
            self._have(rank, items, last, now, {last: found})
        for source in others:
            rank.readers.begin(self._read, rank, items[source], lambda reader, source=source: read(source, reader))

    def _have(self, rank: Rank, items: dict[int, Expected], last: int, polled: float, there: dict[int, Reader]) -> None:
        """Take what is there; the source that was polled came at `polled`."""
        now, pace = self._services.clock.now, rank.paces[items[last].kind]
        rank.read.update(items[source] for source in there)
        pace.came(last, there, polled)
        if len(there) < len(items):
            pace.missed(pace.choose(items.keys() - there.keys()), polled)
        messages = []
        for source, reader in there.items():
            key = items[source]
            rank.visible.pop(key, None)
            share = reader.size / len(reader.edges)
            messages += [(now, (key.layer, key.micro_batch), edge, share) for edge in reader.edges]
        self._listener.came(rank, messages)
        self._look(rank)


class DirectModel:
    """Messages straight from rank to rank: local sockets, or MPI between servers."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        self._services, self._ranks, self._listener = services, ranks, listener
        is_mpi = scenario.channel == "mpi"
        self._latency_s = scenario.timing["mpi.latency_s"] if is_mpi else 0.0
        self._bytes_per_s = scenario.timing["mpi.bytes_per_s" if is_mpi else "connection.bytes_per_s"]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        clock = self._services.clock
        for reader in outgoing.sent[rank.number].readers:
            through = rank.up.pass_s(clock.now, reader.size)
            other = self._ranks[reader.target]
            messages = [(0.0, (key.layer, key.micro_batch), edge, reader.size) for edge in reader.edges]
            clock.at(
                clock.now + self._latency_s + max(through, reader.size / self._bytes_per_s),
                self._listener.came,
                other,
                messages,
            )
        clock.at(clock.now, call, *rest)

    def listen(self, rank: Rank) -> None:
        """Messages come by themselves."""
