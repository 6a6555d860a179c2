"""Simulation of the object channel (S3), request by request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.errors import ChannelError
from fsd_inference.forecast.frames import Outgoing, Reader
from fsd_inference.limits import ABORT_EVERY_S
from fsd_inference.simulator.scenario import Scenario
from tests.support.one_by_one.listener import EventListener
from tests.support.one_by_one.ordered_bucket import OrderedBucket
from tests.support.one_by_one.rank import EventRank
from tests.support.one_by_one.services import EventServices


class ObjectModel:
    """A model of S3 with one object for each step and source, polled in the same way as the channel does."""

    def __init__(
        self, services: EventServices, scenario: Scenario, ranks: list[EventRank], listener: EventListener
    ) -> None:
        timing = scenario.timing
        self._services, self._ranks, self._listener = services, ranks, listener
        puts, gets, burst_s = timing["prefix.puts_per_s"], timing["prefix.gets_per_s"], timing["throttle.burst_s"]
        self._puts = [OrderedBucket(puts, puts * burst_s) for _ in range(scenario.buckets)]
        self._gets = [OrderedBucket(gets, gets * burst_s) for _ in range(scenario.buckets)]

    def send(self, rank: EventRank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        readers, size = outgoing.readers(rank.number), outgoing.sent[rank.number].wire_bytes

        def written() -> None:
            now = self._services.clock.now
            for reader in readers:
                self._ranks[reader.target].visible[key] = now, reader
            rank.writers.end()
            call(*rest)

        rank.writers.begin(self._ask, rank, "put", self._puts, key, size, 0.0, 1, written)

    def _ask(
        self,
        rank: EventRank,
        verb: str,
        rates: list[OrderedBucket],
        key: Expected,
        up: float,
        down: float,
        tried: int,
        call: Callable[[], None],
    ) -> None:
        services = self._services
        services.count(f"s3.{verb}", repeat=tried > 1)
        # Any hash that spreads keys over buckets will do, if it is the same in each run.
        rate = rates[(key.source * 31 + key.layer * 7 + key.micro_batch * 3 + key.kind) % len(rates)]
        if rate.admits(services.clock.now):
            services.send(rank, verb, up, down, 0, call)
            return
        pause_s = services.pause_s(tried)
        if pause_s is None:
            self._listener.failed(rank, ChannelError(f"S3 refused a {verb} too often (throttled)", retryable=True))
            return
        services.clock.at(services.clock.now + pause_s, self._ask, rank, verb, rates, key, up, down, tried + 1, call)

    def listen(self, rank: EventRank) -> None:
        """See `ChannelModel`."""
        if not rank.is_looking and (rank.worker.wanted() or rank.worker.gathers()):
            rank.is_looking = True
            rank.abort_due = max(rank.abort_due, self._services.clock.now + ABORT_EVERY_S)
            self._look(rank)

    def _look(self, rank: EventRank) -> None:
        """Schedule the next poll of the source that is expected last, or of an abort if that is due first."""
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

    def _look_for_abort(self, rank: EventRank, any_key: Expected) -> None:
        self._services.usage.misses += 1
        rank.abort_due = self._services.clock.now + ABORT_EVERY_S
        self._ask(rank, "get", self._gets, any_key, 0.0, 0.0, 1, lambda: self._look(rank))

    def _poll(self, rank: EventRank, items: dict[int, Expected], last: int) -> None:
        self._read(rank, items[last], lambda found: self._polled(rank, items, last, found))

    def _read(self, rank: EventRank, key: Expected, call: Callable[[Reader | None], None]) -> None:
        """Read an object: the first read, and further reads of the rest."""
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

    def _polled(self, rank: EventRank, items: dict[int, Expected], last: int, found: Reader | None) -> None:
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

    def _have(
        self, rank: EventRank, items: dict[int, Expected], last: int, polled: float, there: dict[int, Reader]
    ) -> None:
        """Process the objects that were read; the polled source was found at time `polled`."""
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
