"""Simulated channels: the base class that delivers whole steps, and direct messages between ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.forecast.frames import Outgoing
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Listener, Services


class Incoming:
    """The deliveries of one step, grouped by target, with the time from which each can be received.

    Plain lists, because each rank has only a few deliveries.
    """

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
        """Record the times of consecutive deliveries, starting at `first`; return the targets that are now complete."""
        found, known, left = [], self._times, self._left
        last = first + len(times)
        for slot, target, time in zip(self._slot[first:last], self._targets[first:last], times, strict=True):
            known[slot] = time
            left[target] -= 1
            if not left[target]:
                found.append(target)
        return found

    def of(self, target: int) -> tuple[list[int], list[float], list[float]]:
        """Return the sources, times in seconds and sizes in bytes of a target's deliveries."""
        mine = slice(self._ends[target], self._ends[target + 1])
        return self._sources[mine], self._times[mine], self._sizes[mine]


class StepModel:
    """A channel that computes how a rank receives a step in one go, as soon as all deliveries of the step are known.

    This is possible because ranks slow each other down only through the rate limits of the services. The polls and
    reads are those that the rank makes from when it expects the step and its receive thread is free.
    """

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        self.services, self.ranks, self._listener = services, ranks, listener
        self.scenario = scenario
        self._incoming: dict[Step, Incoming] = {}
        self._waiting: dict[Step, int] = {}  # number of ranks that have yet to receive a step
        self._wanted: dict[tuple[int, Step], float] = {}  # time from which a rank expects a step
        self._complete: set[tuple[int, Step]] = set()  # (rank, step) whose deliveries are all known
        self._free = [0.0] * len(ranks)  # time at which each rank's receive thread is free

    def listen(self, rank: Rank) -> None:
        """See `ChannelModel`."""
        for step in rank.worker.wanted():
            if (rank.number, step) not in self._wanted:
                self._wanted[rank.number, step] = self.services.clock.now
                self._receive_if_ready(rank, step)

    def on_its_way(self, outgoing: Outgoing, key: Expected, first: int, times: Sequence[float]) -> None:
        """Record from when the deliveries of a rank's step can be received; let targets receive once they have all."""
        step = Step(key.layer + 1, key.micro_batch)
        if step not in self._incoming:
            self._incoming[step] = Incoming(outgoing, len(self.ranks))
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

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:
        """Return the time at which a rank that polls from `since` on has received the whole step."""
        raise NotImplementedError

    def tell(self, rank: Rank, outgoing: Outgoing, done: float) -> None:
        """Deliver to a rank's parent, at time `done`, the message that the rank's subtree is done."""
        self.services.clock.at(done, self._listener.told, self.ranks[int(outgoing.targets[0])], rank.number)

    def refused(self, rank: Rank, what: str) -> None:
        """Fail the run because a request was throttled until its retries were used up; `what` names the refusal."""
        self._listener.failed(rank, ChannelError(f"{what} too often (throttled)", retryable=True))


class DirectModel(StepModel):
    """A channel of direct messages between ranks, with no service in between: local sockets, or MPI between servers."""

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        is_mpi = scenario.channel == "mpi"
        self._latency_s = scenario.timing["mpi.latency_s"] if is_mpi else 0.0
        self._bytes_per_s = scenario.timing["mpi.bytes_per_s" if is_mpi else "connection.bytes_per_s"]

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        clock = self.services.clock
        arrivals: list[float] = []
        for reader in outgoing.readers(rank.number):
            upload_s = rank.up.pass_s(clock.now, reader.size)
            arrives = clock.now + self._latency_s + max(upload_s, reader.size / self._bytes_per_s)
            arrivals += [arrives] * reader.frames
        if key.kind is Kind.GATHER:
            self.tell(rank, outgoing, arrivals[-1])
        else:
            self.on_its_way(outgoing, key, outgoing.sent[rank.number].first, arrivals)
        clock.at(clock.now, call, *rest)

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:  # noqa: ARG002
        """See `StepModel`."""
        return max([since, *incoming.of(rank.number)[1]])
