"""The simulated `object` channel: S3 objects under virtual time, polled in the order that the real channel uses."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import Outgoing
from fsd_inference.limits import ABORT_EVERY_S, READERS, WRITERS
from fsd_inference.simulator.channels import Incoming, StepModel
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Listener, Services
from fsd_inference.token_bucket import TokenBucket

_KINDS = {"put": "s3.put", "get": "s3.get"}


class _Objects(NamedTuple):
    """The objects that one rank reads for a step: by source, the time from which each exists, and its bytes."""

    layer: int
    visible: dict[int, float]
    sizes: dict[int, float]
    beyond: dict[tuple[int, int], int]  # see `Outgoing`

    @classmethod
    def of(cls, rank: Rank, step: Step, incoming: Incoming) -> _Objects:
        """Collect a rank's deliveries of a step into one object for each source."""
        sources, times, sizes = incoming.of(rank.number)
        total = dict(zip(sources, sizes, strict=True))
        if len(total) < len(sources):  # an object has several frames for this rank
            total = dict.fromkeys(sources, 0.0)
            for source, size in zip(sources, sizes, strict=True):
                total[source] += size
        return cls(step.layer - 1, dict(zip(sources, times, strict=True)), total, incoming.beyond)


class ObjectModel(StepModel):
    """A model of S3 buckets with rate limits, and of ranks that poll for objects.

    Each bucket has one partition, as a new one has: S3 splits it only after minutes of load.
    """

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        timing = scenario.timing
        puts, gets, burst_s = timing["prefix.puts_per_s"], timing["prefix.gets_per_s"], timing["throttle.burst_s"]
        self._puts = [TokenBucket(puts, puts * burst_s) for _ in range(scenario.buckets)]
        self._gets = [TokenBucket(gets, gets * burst_s) for _ in range(scenario.buckets)]
        self._writers = [[0.0] * WRITERS for _ in ranks]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        clock, writers = self.services.clock, self._writers[rank.number]
        sent = outgoing.sent[rank.number]
        start = max(clock.now, writers[0])
        done = self._request(rank, "put", self._puts, key.source + key.layer, sent.wire_bytes, start)
        if done is None:
            self.refused(rank, "S3 refused a PUT")
            return
        heapq.heapreplace(writers, done)
        if key.kind is Kind.GATHER:
            self._deliver_gather(rank, outgoing, done)
        else:
            self.on_its_way(outgoing, key, sent.first, [done] * (sent.last - sent.first))
        clock.at(done, call, *rest)

    def _request(
        self, rank: Rank, verb: str, rates: list[TokenBucket], place: int, size: float, start: float
    ) -> float | None:
        """Return the time at which a request that begins at `start` is answered; None if its retries are used up.

        Like the real channel, retry a throttled request until the stall clock. `rates` are the rate limits of the
        buckets, and `place` selects one of them.
        """
        services, tried, kind, since = self.services, 1, _KINDS[verb], start
        rate = rates[place % len(rates)]
        services.usage.requests[kind] += 1
        services.usage.billed_units[kind] += 1
        while not rate.admits(start):
            pause_s = services.pause_s(tried, start - since)
            if pause_s is None:
                return None
            start, tried = start + pause_s, tried + 1
            services.count(kind, repeat=True)
        up, down = (size, 0.0) if verb == "put" else (0.0, size)
        return start + services.request_s(rank, verb, up, down, 0, start)

    def _deliver_gather(self, rank: Rank, outgoing: Outgoing, written: float) -> None:
        """Deliver a gather message, written at `written`, to its only target with one read."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes.sum())
        services.count("s3.get")
        services.usage.received_bytes += round(size)
        self.tell(rank, outgoing, written + services.request_s(target, "get", 0.0, size, 0, written))

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:
        """Return the time at which all objects of the step are read.

        Like the real channel, poll for the object that is expected last; once it exists, read all others.
        """
        objects = _Objects.of(rank, step, incoming)
        usage, visible = self.services.usage, objects.visible
        missing = dict.fromkeys(visible)
        pace, now = rank.pace, since
        pace.begin((step.layer - 1, step.micro_batch))
        while missing:
            last = pace.choose(missing)
            polled = max(now, pace.poll_at(last))
            answered = self._read(rank, objects, last, polled)
            if answered is None:
                return self._give_up(rank, now)
            now = answered
            if visible[last] > polled:
                usage.misses += 1
                pace.missed(last, now)
                continue
            del missing[last]
            read, ended = self._read_all(rank, objects, missing, answered)
            if ended is None:
                return self._give_up(rank, now)
            now = max(now, ended)
            usage.misses += len(missing) - len(read)
            for source in read:
                del missing[source]
            pace.came(last, [last, *read], answered)
            if missing:
                pace.missed(pace.choose(missing), answered)
        # Meanwhile the rank also polls for an abort object.
        abort_polls = int((now - since) / ABORT_EVERY_S)
        usage.requests["s3.get"] += abort_polls
        usage.billed_units["s3.get"] += abort_polls
        usage.misses += abort_polls
        usage.received_bytes += round(sum(objects.sizes.values()))
        return now

    def _read_all(
        self, rank: Rank, objects: _Objects, sources: Collection[int], start: float
    ) -> tuple[list[int], float | None]:
        """Read objects with `READERS` concurrent requests; return the sources found, and when all reads are answered.

        The time is None if the retries of a read are used up. The common case of `_read` is inlined for speed, because
        most requests of a run are made here.
        """
        services, gets, pass_s = self.services, self._gets, rank.down.pass_s
        visible, sizes, layer, is_cut = objects.visible, objects.sizes, objects.layer, bool(objects.beyond)
        connection, buckets = services.connection, len(gets)
        begin_s, byte_s = services.get_work_s(rank)
        readers = [start] * READERS
        read: list[int] = []
        not_inlined = 0
        for source, latency in zip(sources, services.draws.latencies("get", len(sources)), strict=True):
            now = readers[0]
            exists = visible[source] <= now
            if is_cut or not gets[(source + layer) % buckets].admits(now):
                not_inlined += 1
                found = self._read(rank, objects, source, now)
                if found is None:
                    return read, None
                answered = found
            elif exists:
                size = sizes[source]
                begun = now + begin_s + size * byte_s
                alone, passing = size / connection, pass_s(begun, size)
                answered = begun + latency + (alone if alone > passing else passing)
            else:
                answered = now + begin_s + latency
            if exists:
                read.append(source)
            heapq.heapreplace(readers, answered)
        services.usage.requests["s3.get"] += len(sources) - not_inlined
        services.usage.billed_units["s3.get"] += len(sources) - not_inlined
        return read, max(readers)

    def _read(self, rank: Rank, objects: _Objects, source: int, now: float) -> float | None:
        """Return the time at which a read of an object that begins at `now` is answered; None if retries are used up.

        An object that does not exist at `now` is a miss, which costs a request without a body.
        """
        place = source + objects.layer
        size = objects.sizes[source] if objects.visible[source] <= now else 0.0
        if size and objects.beyond:
            for _ in range(objects.beyond.get((source, rank.number), 0)):
                answered = self._request(rank, "get", self._gets, place, 0.0, now)
                if answered is None:
                    return None
                now = answered
        return self._request(rank, "get", self._gets, place, size, now)

    def _give_up(self, rank: Rank, now: float) -> float:
        self.refused(rank, "S3 refused a GET")
        return now
