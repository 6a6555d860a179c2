"""Channels of functions, whose processors are their own: all requests of a rank's step are reckoned at once.

As `services` has them one by one, where ranks and services take turns on a host's cores; here nothing that a rank asks
for slows another down but the services' own limits, so that a thousand ranks can be simulated in a minute. A step is
received once all that it needs is on its way: the polls from then on are those that the rank makes until it has come.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.cost.frames import units
from fsd_inference.cost.simulator.rank import READERS, SENDERS, WRITERS, Rank
from fsd_inference.cost.simulator.resources import Rate
from fsd_inference.cost.simulator.scenario import Scenario
from fsd_inference.cost.simulator.services import Listener, Services
from fsd_inference.cost.simulator.traffic import Batch, Outgoing
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.limits import ABORT_EVERY_S, BATCH_ENTRIES, HASH_FOLDERS
from fsd_inference.usage import EACH_MESSAGE

_KINDS = {"put": "s3.put", "get": "s3.get"}
_EACH = f"sns.publish{EACH_MESSAGE}"


class _Incoming:
    """What is on its way of one step: a place for each delivery, by target. Lists: of each rank there are few."""

    def __init__(self, outgoing: Outgoing, workers: int) -> None:
        order = np.argsort(outgoing.targets, kind="stable")
        slot = np.empty_like(order)
        slot[order] = np.arange(order.size)
        total = np.bincount(outgoing.targets, minlength=workers)
        self._slot: list[int] = slot.tolist()
        self._targets: list[int] = outgoing.targets.tolist()
        self._left: list[int] = total.tolist()
        self._ends: list[int] = [0, *np.cumsum(total).tolist()]
        self._times = [0.0] * order.size
        self._sizes: list[float] = outgoing.sizes[order].tolist()
        self._sources: list[int] = outgoing.sources[order].tolist()
        self.beyond = outgoing.beyond
        self.receivers = int(np.count_nonzero(total))

    def put(self, first: int, times: Sequence[float]) -> list[int]:
        """Note when deliveries from the first on can be received; return the targets for which all is known now."""
        found, known, left = [], self._times, self._left
        last = first + len(times)
        for slot, target, time in zip(self._slot[first:last], self._targets[first:last], times, strict=True):
            known[slot] = time
            left[target] -= 1
            if not left[target]:
                found.append(target)
        return found

    def of(self, target: int) -> tuple[list[int], list[float], list[float]]:
        """Return sources, times and sizes of what comes to a target."""
        mine = slice(self._ends[target], self._ends[target + 1])
        return self._sources[mine], self._times[mine], self._sizes[mine]


class _Objects(NamedTuple):
    """What one rank reads of a step: the layer that sent it; by source, since when it is there, and its bytes."""

    layer: int
    visible: dict[int, float]
    sizes: dict[int, float]
    beyond: dict[tuple[int, int], int]  # see `Outgoing`

    @classmethod
    def of(cls, rank: Rank, step: Step, incoming: _Incoming) -> _Objects:
        """Put together what comes of one source."""
        sources, times, sizes = incoming.of(rank.number)
        total = dict(zip(sources, sizes, strict=True))
        if len(total) < len(sources):  # several frames of one object
            total = dict.fromkeys(sources, 0.0)
            for source, size in zip(sources, sizes, strict=True):
                total[source] += size
        return cls(step.layer - 1, dict(zip(sources, times, strict=True)), total, incoming.beyond)


class BulkModel:
    """What both channels have in common: who wants what, and for which steps all is known."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        self.services, self.ranks, self._listener = services, ranks, listener
        self.scenario = scenario
        self._incoming: dict[Step, _Incoming] = {}
        self._waiting: dict[Step, int] = {}  # ranks that are still to receive a step
        self._wanted: dict[tuple[int, Step], float] = {}  # since when a rank wants a step
        self._complete: set[tuple[int, Step]] = set()
        self._free = [0.0] * len(ranks)  # when each rank's receiver is

    def listen(self, rank: Rank) -> None:
        """See `ChannelModel`."""
        for step in rank.worker.wanted():
            if (rank.number, step) not in self._wanted:
                self._wanted[rank.number, step] = self.services.clock.now
                self._receive_if_ready(rank, step)

    def on_its_way(self, outgoing: Outgoing, key: Expected, first: int, times: Sequence[float]) -> None:
        """Note when what a rank sends of a step can be received."""
        step = Step(key.layer + 1, key.micro_batch)
        if step not in self._incoming:
            self._incoming[step] = _Incoming(outgoing, len(self.ranks))
            self._waiting[step] = self._incoming[step].receivers
        for target in self._incoming[step].put(first, times):
            self._complete.add((target, step))
            self._receive_if_ready(self.ranks[target], step)

    def _receive_if_ready(self, rank: Rank, step: Step) -> None:
        mine = rank.number, step
        if mine not in self._complete or mine not in self._wanted:
            return
        self._complete.remove(mine)
        incoming = self._incoming[step]
        since = max(self._wanted[mine], self._free[rank.number])
        done = self.receive(rank, step, incoming, since)
        self._free[rank.number] = done
        self.services.clock.at(done, self._listener.came_all, rank, step)
        self._waiting[step] -= 1
        if not self._waiting[step]:
            del self._incoming[step], self._waiting[step]

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, since: float) -> float:
        """Return when the rank, which looks from `since` on, has all of the step."""
        raise NotImplementedError

    def refused(self, rank: Rank, what: str) -> None:
        """End the run: a request was refused too often."""
        self._listener.failed(rank, ChannelError(f"{what} too often (throttled)", retryable=True))


class BulkQueueModel(BulkModel):
    """SNS topics and SQS queues."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        rate, burst_s = scenario.timing["topic.messages_per_s"], scenario.timing["throttle.burst_s"]
        topics = math.ceil(len(ranks) / scenario.limits.ranks_a_topic)
        self._topics = [Rate(rate, rate * burst_s) for _ in range(topics)]
        self._senders = [[0.0] * SENDERS for _ in ranks]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        services, now = self.services, self.services.clock.now
        usage, sent, senders = services.usage, outgoing.sent[rank.number], self._senders[rank.number]
        there: list[float] = []
        last = now
        for batch in sent.batches:
            start, deliveries = max(now, senders[0]), batch.last - batch.first
            if not self._topics[batch.topic].admits_any(start, batch.messages):
                admitted = self._when_admitted(batch, start)
                if admitted is None:
                    self.refused(rank, "SNS refused a publish")
                    return
                start = admitted
            end = start + services.request_s(rank, "publish", batch.size, 0.0, deliveries, start)
            heapq.heapreplace(senders, end)
            there += [end + later for later in services.draws.latencies("deliver", deliveries)]
            last = max(last, end)
        usage.requests["sns.publish"] += len(sent.batches)
        usage.billed_units["sns.publish"] += sum(batch.units for batch in sent.batches)
        usage.billed_units[_EACH] += sum(batch.message_units for batch in sent.batches)
        if key.kind is Kind.GATHER:
            self._gathered(rank, outgoing, key, there[0])
        else:
            self.on_its_way(outgoing, key, sent.first, there)
        services.clock.at(last, call, *rest)

    def _when_admitted(self, batch: Batch, start: float) -> float | None:
        """Return when the topic takes a batch that it refuses at `start`; None: it refuses it too often."""
        services, tried = self.services, 1
        while (pause_s := services.pause_s(tried)) is not None:
            start, tried = start + pause_s, tried + 1
            services.count("sns.publish", batch.units, repeat=True)
            services.usage.billed_units[_EACH] += batch.message_units
            if self._topics[batch.topic].admits_any(start, batch.messages):
                return start
        return None

    def _gathered(self, rank: Rank, outgoing: Outgoing, key: Expected, there: float) -> None:
        """Bring a summary to its one target, with a poll."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes[0])
        services.count("sqs.receive", units(size))
        services.usage.received_bytes += round(size)
        done = there + services.request_s(target, "receive", 0.0, size, 1, there)
        message = (done, (key.layer, key.micro_batch), (rank.number, 0), size)
        services.clock.at(done, self._listener.came, target, [message])

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, since: float) -> float:  # noqa: ARG002
        """Poll until all messages have come, at most ten a poll."""
        services, usage = self.services, self.services.usage
        _, times, sizes = incoming.of(rank.number)
        arrivals = sorted(zip(times, sizes, strict=True))
        poll_s, now, taken, polls, empty, billed = self.scenario.limits.poll_s, since, 0, 0, 0, 0
        while taken < len(arrivals):
            if arrivals[taken][0] > now:
                empty += int((arrivals[taken][0] - now) / poll_s)
                now = arrivals[taken][0]
            last, size = taken, 0.0
            for time, of_message in arrivals[taken : taken + BATCH_ENTRIES]:
                if time > now:
                    break
                size += of_message
                last += 1
            now += services.request_s(rank, "receive", 0.0, size, last - taken, now)
            billed += units(size)
            polls += 1
            taken = last
        usage.requests["sqs.receive"] += polls + empty
        usage.billed_units["sqs.receive"] += billed + empty
        usage.empty_polls += empty
        usage.received_bytes += round(sum(sizes))
        return now


class BulkObjectModel(BulkModel):
    """S3."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        timing = scenario.timing
        puts, gets, burst_s = timing["prefix.puts_per_s"], timing["prefix.gets_per_s"], timing["throttle.burst_s"]
        prefixes = range(len(HASH_FOLDERS) * scenario.buckets)
        self._puts = [Rate(puts, puts * burst_s) for _ in prefixes]
        self._gets = [Rate(gets, gets * burst_s) for _ in prefixes]
        self._writers = [[0.0] * WRITERS for _ in ranks]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        clock, writers = self.services.clock, self._writers[rank.number]
        sent = outgoing.sent[rank.number]
        done = self._asked(rank, "put", self._puts, key.source + key.layer, sent.wire_bytes, max(clock.now, writers[0]))
        if done is None:
            self.refused(rank, "S3 refused a PUT")
            return
        heapq.heapreplace(writers, done)
        if key.kind is Kind.GATHER:
            self._gathered(rank, outgoing, key, done)
        else:
            self.on_its_way(outgoing, key, sent.first, [done] * (sent.last - sent.first))
        clock.at(done, call, *rest)

    def _asked(self, rank: Rank, verb: str, rates: list[Rate], place: int, size: float, start: float) -> float | None:
        """Return when a request that is begun at `start` has been answered; None: it is refused too often."""
        services, tried, kind = self.services, 1, _KINDS[verb]
        rate = rates[place * 7 % len(rates)]
        services.usage.requests[kind] += 1
        services.usage.billed_units[kind] += 1
        while not rate.admits_any(start):
            pause_s = services.pause_s(tried)
            if pause_s is None:
                return None
            start, tried = start + pause_s, tried + 1
            services.count(kind, repeat=True)
        up, down = (size, 0.0) if verb == "put" else (0.0, size)
        return start + services.request_s(rank, verb, up, down, 0, start)

    def _gathered(self, rank: Rank, outgoing: Outgoing, key: Expected, written: float) -> None:
        """Bring a summary to its one target, with a read."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes[0])
        services.count("s3.get")
        services.usage.received_bytes += round(size)
        done = written + services.request_s(target, "get", 0.0, size, 0, written)
        message = (done, (key.layer, key.micro_batch), (rank.number, 0), size)
        services.clock.at(done, self._listener.came, target, [message])

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, since: float) -> float:
        """Poll the source that is expected last, as the channel does; when it has come, read the others."""
        objects = _Objects.of(rank, step, incoming)
        usage, visible = self.services.usage, objects.visible
        missing = dict.fromkeys(visible)
        pace, now = rank.paces[Kind.DATA], since
        pace.begin((step.layer - 1, step.micro_batch))
        while missing:
            last = pace.choose(missing)
            look = max(now, pace.poll_at(last))
            answered = self._read(rank, objects, last, look)
            if answered is None:
                return self._given_up(rank, now)
            now = answered
            if visible[last] > look:
                usage.misses += 1
                pace.missed(last, now)
                continue
            del missing[last]
            there, ended = self._read_all(rank, objects, missing, answered)
            if ended is None:
                return self._given_up(rank, now)
            now = max(now, ended)
            usage.misses += len(missing) - len(there)
            for source in there:
                del missing[source]
            pace.came(last, [last, *there], answered)
            if missing:
                pace.missed(pace.choose(missing), answered)
        # In between, aborts are looked for.
        looks = int((now - since) / ABORT_EVERY_S)
        usage.requests["s3.get"] += looks
        usage.billed_units["s3.get"] += looks
        usage.misses += looks
        usage.received_bytes += round(sum(objects.sizes.values()))
        return now

    def _read_all(
        self, rank: Rank, objects: _Objects, sources: Collection[int], start: float
    ) -> tuple[list[int], float | None]:
        """Read several at a time; return the sources whose objects were there, and when all reads are answered.

        As `_read` has it, in line: most of a run's requests are these.
        """
        services, gets, pass_s = self.services, self._gets, rank.down.pass_s
        visible, sizes, layer, is_cut = objects.visible, objects.sizes, objects.layer, bool(objects.beyond)
        connection, prefixes = services.connection, len(gets)
        begin_s, byte_s = services.get_work_s(rank)
        readers = [start] * READERS
        there: list[int] = []
        apart = 0
        for source, latency in zip(sources, services.draws.latencies("get", len(sources)), strict=True):
            look = readers[0]
            is_there = visible[source] <= look
            if is_cut or not gets[(source + layer) * 7 % prefixes].admits_any(look):
                apart += 1
                found = self._read(rank, objects, source, look)
                if found is None:
                    return there, None
                answered = found
            elif is_there:
                size = sizes[source]
                begun = look + begin_s + size * byte_s
                alone, passing = size / connection, pass_s(begun, size)
                answered = begun + latency + (alone if alone > passing else passing)
            else:
                answered = look + begin_s + latency
            if is_there:
                there.append(source)
            heapq.heapreplace(readers, answered)
        services.usage.requests["s3.get"] += len(sources) - apart
        services.usage.billed_units["s3.get"] += len(sources) - apart
        return there, max(readers)

    def _read(self, rank: Rank, objects: _Objects, source: int, look: float) -> float | None:
        """Return when a look at `look` for an object is answered; None: it is refused too often."""
        place = source + objects.layer
        size = objects.sizes[source] if objects.visible[source] <= look else 0.0
        if size and objects.beyond:
            for _ in range(objects.beyond.get((source, rank.number), 0)):
                answered = self._asked(rank, "get", self._gets, place, 0.0, look)
                if answered is None:
                    return None
                look = answered
        return self._asked(rank, "get", self._gets, place, size, look)

    def _given_up(self, rank: Rank, now: float) -> float:
        self.refused(rank, "S3 refused a GET")
        return now
