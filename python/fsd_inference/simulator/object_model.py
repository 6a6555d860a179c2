"""Objects of S3 under virtual time, looked for as the channel does."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import Outgoing
from fsd_inference.forecast.token_bucket import TokenBucket
from fsd_inference.limits import ABORT_EVERY_S, HASH_FOLDERS, READERS, WRITERS
from fsd_inference.simulator.channels import Incoming, StepModel
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Listener, Services

_KINDS = {"put": "s3.put", "get": "s3.get"}


class _Objects(NamedTuple):
    """What one rank reads of a step: the layer that sent it; by source, since when it is there, and its bytes."""

    layer: int
    visible: dict[int, float]
    sizes: dict[int, float]
    beyond: dict[tuple[int, int], int]  # see `Outgoing`

    @classmethod
    def of(cls, rank: Rank, step: Step, incoming: Incoming) -> _Objects:
        """Put together what comes of one source."""
        sources, times, sizes = incoming.of(rank.number)
        total = dict(zip(sources, sizes, strict=True))
        if len(total) < len(sources):  # several frames of one object
            total = dict.fromkeys(sources, 0.0)
            for source, size in zip(sources, sizes, strict=True):
                total[source] += size
        return cls(step.layer - 1, dict(zip(sources, times, strict=True)), total, incoming.beyond)


class ObjectModel(StepModel):
    """S3."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        timing = scenario.timing
        puts, gets, burst_s = timing["prefix.puts_per_s"], timing["prefix.gets_per_s"], timing["throttle.burst_s"]
        prefixes = range(len(HASH_FOLDERS) * scenario.buckets)
        self._puts = [TokenBucket(puts, puts * burst_s) for _ in prefixes]
        self._gets = [TokenBucket(gets, gets * burst_s) for _ in prefixes]
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
            self._gathered(rank, outgoing, done)
        else:
            self.on_its_way(outgoing, key, sent.first, [done] * (sent.last - sent.first))
        clock.at(done, call, *rest)

    def _asked(
        self, rank: Rank, verb: str, rates: list[TokenBucket], place: int, size: float, start: float
    ) -> float | None:
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

    def _gathered(self, rank: Rank, outgoing: Outgoing, written: float) -> None:
        """Bring a summary to its one target, with a read."""
        services, target = self.services, self.ranks[int(outgoing.targets[0])]
        size = float(outgoing.sizes.sum())
        services.count("s3.get")
        services.usage.received_bytes += round(size)
        self.tell(rank, outgoing, written + services.request_s(target, "get", 0.0, size, 0, written))

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:
        """Poll the source that is expected last, as the channel does; when it has come, read the others."""
        objects = _Objects.of(rank, step, incoming)
        usage, visible = self.services.usage, objects.visible
        missing = dict.fromkeys(visible)
        pace, now = rank.pace, since
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
