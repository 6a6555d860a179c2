"""Channels of functions, whose processors are their own: all requests of a rank's step are reckoned at once.

As `services` has them one by one, where ranks and services take turns on a host's cores; here nothing that a rank asks
for slows another down but the services' own limits, so that a thousand ranks can be simulated in a minute. A step is
received once all that it needs is on its way: the polls from then on are those that the rank makes until it has come.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.cost.frames import units
from fsd_inference.cost.simulator.rank import READERS, SENDERS, WRITERS, Rank
from fsd_inference.cost.simulator.resources import Rate
from fsd_inference.cost.simulator.scenario import Scenario
from fsd_inference.cost.simulator.services import FOLDERS, MESSAGES_A_POLL, Listener, Services
from fsd_inference.cost.simulator.traffic import Batch, Outgoing
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.records import EACH_MESSAGE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_ABORT_EVERY_S = 1.0  # channels/object.py
_EACH = f"sns.publish{EACH_MESSAGE}"


class _Incoming:
    """What is on its way of one step: a place for each delivery, by target."""

    def __init__(self, outgoing: Outgoing, workers: int) -> None:
        order = np.argsort(outgoing.targets, kind="stable")
        self.slot = np.empty_like(order)
        self.slot[order] = np.arange(order.size)
        self.left = np.bincount(outgoing.targets, minlength=workers)
        self.ends = np.cumsum(self.left)
        self.times = np.empty(order.size)
        self.sizes = outgoing.sizes[order]
        self.sources = outgoing.sources[order]
        self.targets = outgoing.targets
        self.total = self.left.copy()

    def put(self, first: int, last: int, times: Floats) -> list[int]:
        """Note when deliveries first..last can be received; return the targets for which all is known now."""
        self.times[self.slot[first:last]] = times
        targets = self.targets[first:last]
        np.subtract.at(self.left, targets, 1)
        return list(dict.fromkeys(targets[self.left[targets] == 0].tolist()))

    def of(self, target: int) -> slice:
        """Return the places of a target."""
        end = int(self.ends[target])
        return slice(end - int(self.total[target]), end)


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

    def on_its_way(self, outgoing: Outgoing, key: Expected, first: int, last: int, times: Floats) -> None:
        """Note when what a rank sends of a step can be received."""
        step = Step(key.layer + 1, key.micro_batch)
        if step not in self._incoming:
            self._incoming[step] = _Incoming(outgoing, len(self.ranks))
            self._waiting[step] = int(np.count_nonzero(self._incoming[step].left))
        for target in self._incoming[step].put(first, last, times):
            self._complete.add((target, step))
            self._receive_if_ready(self.ranks[target], step)

    def _receive_if_ready(self, rank: Rank, step: Step) -> None:
        mine = rank.number, step
        if mine not in self._complete or mine not in self._wanted:
            return
        self._complete.remove(mine)
        incoming = self._incoming[step]
        since = max(self._wanted[mine], self._free[rank.number])
        done = self.receive(rank, step, incoming, incoming.of(rank.number), since)
        self._free[rank.number] = done
        self.services.clock.at(done, self._listener.came_all, rank, step)
        self._waiting[step] -= 1
        if not self._waiting[step]:
            del self._incoming[step], self._waiting[step]

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, mine: slice, since: float) -> float:
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
        ends, counts = [], []
        for batch in sent.batches:
            start, deliveries = max(now, senders[0]), batch.last - batch.first
            if not self._topics[batch.topic].admits_any(start, batch.messages):
                later = self._when_admitted(batch, start)
                if later is None:
                    self.refused(rank, "SNS refused a publish")
                    return
                start = later
            end = start + services.request_s(rank, "publish", batch.size, 0.0, deliveries, start)
            heapq.heapreplace(senders, end)
            ends.append(end)
            counts.append(deliveries)
        usage.requests["sns.publish"] += len(ends)
        usage.billed_units["sns.publish"] += sum(batch.units for batch in sent.batches)
        usage.billed_units[_EACH] += sum(batch.message_units for batch in sent.batches)
        first, last = sent.batches[0].first, sent.batches[-1].last
        there = np.repeat(ends, counts) + services.draws.latencies("deliver", last - first)
        if key.kind is Kind.GATHER:
            self._gathered(rank, outgoing, key, float(there[0]))
        else:
            self.on_its_way(outgoing, key, first, last, there)
        services.clock.at(max(ends), call, *rest)

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

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, mine: slice, since: float) -> float:  # noqa: ARG002
        """Poll until all messages have come, at most ten a poll."""
        services, usage = self.services, self.services.usage
        order = np.argsort(incoming.times[mine])
        times: list[float] = incoming.times[mine][order].tolist()
        sizes: list[float] = incoming.sizes[mine][order].tolist()
        poll_s, now, taken, polls, empty, billed = self.scenario.limits.poll_s, since, 0, 0, 0, 0
        while taken < len(times):
            if times[taken] > now:
                empty += int((times[taken] - now) / poll_s)
                now = times[taken]
            last, size = taken, 0.0
            while last < len(times) and last - taken < MESSAGES_A_POLL and times[last] <= now:
                size += sizes[last]
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
        prefixes = range(FOLDERS * scenario.buckets)
        self._puts = [Rate(puts, puts * burst_s) for _ in prefixes]
        self._gets = [Rate(gets, gets * burst_s) for _ in prefixes]
        self._writers = [[0.0] * WRITERS for _ in ranks]
        self._extra: dict[Step, dict[tuple[int, int], int]] = {}  # (source, target) -> reads beyond the first

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
            step = Step(key.layer + 1, key.micro_batch)
            for reader in sent.readers:
                if reader.reads > 1:
                    self._extra.setdefault(step, {})[rank.number, reader.target] = reader.reads - 1
            first, last = np.searchsorted(outgoing.sources, [rank.number, rank.number + 1]).tolist()
            self.on_its_way(outgoing, key, first, last, np.full(last - first, done))
        clock.at(done, call, *rest)

    def _asked(self, rank: Rank, verb: str, rates: list[Rate], place: int, size: float, start: float) -> float | None:
        """Return when a request that is begun at `start` has been answered; None: it is refused too often."""
        services, tried = self.services, 1
        rate = rates[place * 7 % len(rates)]
        while True:
            services.count(f"s3.{verb}", repeat=tried > 1)
            if rate.admits_any(start):
                up, down = (size, 0.0) if verb == "put" else (0.0, size)
                return start + services.request_s(rank, verb, up, down, 0, start)
            pause_s = services.pause_s(tried)
            if pause_s is None:
                return None
            start, tried = start + pause_s, tried + 1

    def _gathered(self, rank: Rank, outgoing: Outgoing, key: Expected, written: float) -> None:
        """Bring a summary to its one target, with a read."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes[0])
        services.count("s3.get")
        services.usage.received_bytes += round(size)
        done = written + services.request_s(target, "get", 0.0, size, 0, written)
        message = (done, (key.layer, key.micro_batch), (rank.number, 0), size)
        services.clock.at(done, self._listener.came, target, [message])

    def receive(self, rank: Rank, step: Step, incoming: _Incoming, mine: slice, since: float) -> float:
        """Poll the source that is expected last, as the channel does; when it has come, read the others."""
        services = self.services
        sources = incoming.sources[mine].tolist()
        visible = dict(zip(sources, incoming.times[mine].tolist(), strict=True))
        sizes = dict.fromkeys(sources, 0.0)
        for source, size in zip(sources, incoming.sizes[mine].tolist(), strict=True):
            sizes[source] += size
        extra = self._extra.get(step, {})
        pace, now, missing = rank.paces[Kind.DATA], since, set(visible)
        pace.begin((step.layer - 1, step.micro_batch))
        while missing:
            last = pace.choose(missing)
            look = max(now, pace.poll_at(last))
            found = self._read(rank, step, last, visible[last], sizes[last], extra, look)
            if found is None:
                return self._given_up(rank, now)
            answered, is_there = found
            if not is_there:
                pace.missed(last, answered)
                now = answered
                continue
            there, readers, now = {last}, [answered] * READERS, answered
            for source in missing - {last}:
                found = self._read(rank, step, source, visible[source], sizes[source], extra, readers[0])
                if found is None:
                    return self._given_up(rank, now)
                if found[1]:
                    there.add(source)
                heapq.heapreplace(readers, found[0])
                now = max(now, found[0])
            pace.came(last, there, answered)
            missing -= there
            if missing:
                pace.missed(pace.choose(missing), answered)
        # In between, aborts are looked for.
        looks = int((now - since) / _ABORT_EVERY_S)
        services.usage.requests["s3.get"] += looks
        services.usage.billed_units["s3.get"] += looks
        services.usage.misses += looks
        services.usage.received_bytes += round(sum(sizes.values()))
        return now

    def _read(
        self,
        rank: Rank,
        step: Step,
        source: int,
        visible: float,
        size: float,
        extra: dict[tuple[int, int], int],
        look: float,
    ) -> tuple[float, bool] | None:
        """Return when a look at `look` was answered, and whether the object was there; None: refused too often."""
        is_there = visible <= look
        beyond = extra.get((source, rank.number), 0) if is_there else 0
        place, done = source + step.layer - 1, look
        for read in range(beyond + 1):
            wanted = size if is_there and read == beyond else 0.0
            answered = self._asked(rank, "get", self._gets, place, wanted, done)
            if answered is None:
                return None
            done = answered
        self.services.usage.misses += not is_there
        return done, is_there

    def _given_up(self, rank: Rank, now: float) -> float:
        self.refused(rank, "S3 refused a GET")
        return now
