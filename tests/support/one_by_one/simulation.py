"""Simulation of a run under virtual time, request by request, on functions or on one host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsd_inference.channels.base import Kind
from fsd_inference.engine.messages import Arrived, ArrivedEdges, Step
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario, SimulatedRun
from fsd_inference.simulator.services import ChannelModel, Services
from fsd_inference.simulator.simulation import Simulation, without_collector
from tests.support.one_by_one.host import Host
from tests.support.one_by_one.object_model import ObjectModel
from tests.support.one_by_one.queue_model import EmulatedQueueModel, QueueModel
from tests.support.one_by_one.rank import EventRank, Message
from tests.support.one_by_one.services import EventServices, HostServices


def simulate_one_by_one(scenario: Scenario, host: Host | None = None) -> SimulatedRun:
    """Simulate a run on functions, or on a host that all ranks share."""
    with without_collector():
        run = EventSimulation(scenario, host).run()
    if host is not None:
        run.usage.requests.pop("lambda.invoke", None)
    return run


class EventSimulation(Simulation):
    """A simulation of one run over queues or objects, frame by frame."""

    ranks: list[EventRank]  # type: ignore[assignment]

    def __init__(self, scenario: Scenario, host: Host | None) -> None:
        self._host = host
        super().__init__(scenario)

    def make_rank(self, number: int) -> EventRank:
        """See `Simulation`."""
        rank = super().make_rank(number)
        return EventRank(rank.number, rank.starter, rank.plan, rank.worker, rank.speed, rank.up, rank.down)

    def make_services(self) -> tuple[Services, ChannelModel]:
        """See `Simulation`."""
        scenario, host = self.scenario, self._host
        given = scenario, self.clock, self.draws, self.speed
        services = EventServices(*given) if host is None else HostServices(host, *given)
        channel: Any
        if scenario.channel == "object":
            channel = ObjectModel(services, scenario, self.ranks, self)
        elif isinstance(services, HostServices) and host is not None and host.values["poll.tick_s"]:
            channel = EmulatedQueueModel(services, scenario, self.ranks, self, host.values["poll.tick_s"])
        else:
            channel = QueueModel(services, scenario, self.ranks, self)
        return services, channel

    def launch(self) -> tuple[float, float]:
        """See `Simulation`; on a host the caller starts rank 0."""
        if self._host is None:
            return super().launch()
        launched = self.scenario.timing["client.before_s"]
        return launched, launched

    def caller_done(self, work_s: float) -> float:
        """See `Simulation`; on a host, the caller competes for a core as well."""
        if self._host is None:
            return super().caller_done(work_s)
        done: list[float] = []
        self.services.work(work_s, lambda: done.append(self.clock.now))
        self.clock.run(lambda: bool(done))
        return self.clock.now

    def send(self, rank: Rank, step: Step, since: float) -> None:
        """See `Simulation`."""
        self._later(super().send, rank, step, since)

    def send_gather(self, rank: Rank, target: int) -> None:
        """See `Simulation`."""
        self._later(super().send_gather, rank, target)

    def _later(self, call: Callable[..., None], *arguments: Any) -> None:
        if self._host is not None and self._host.delay_s:
            self.clock.at(self.clock.now + self._host.delay_s / 2, call, *arguments)
        else:
            call(*arguments)

    def came(self, rank: EventRank, messages: list[Message]) -> None:
        """See `EventListener`."""
        self._later(self._came, rank, messages)

    def loaded(self, rank: Rank, layers: int | None = None) -> None:
        """See `Simulation`."""
        super().loaded(rank, layers)
        assert isinstance(rank, EventRank)
        self._came(rank, rank.unread)

    def ticked(self, rank: Rank) -> None:
        """See `Simulation`; passes on edges of incomplete steps first, since the stall clock counts their sources."""
        assert isinstance(rank, EventRank)
        for step in sorted(rank.held):
            self.tell(rank, ArrivedEdges(*step, tuple(rank.held[step])))
        super().ticked(rank)

    def _came(self, rank: EventRank, messages: list[Message]) -> None:
        if not rank.is_loaded:  # no inbox yet
            rank.unread += messages
            return
        now, held, parts, steps = self.clock.now, rank.held, rank.parts, set()
        for _, step, edge, _ in messages:
            if (step, edge) in parts:
                parts[step, edge] -= 1
                if parts[step, edge]:
                    continue
                del parts[step, edge]
            steps.add(step)
            held.setdefault(step, []).append(edge)
        for layer, micro_batch in sorted(steps):
            rank.note("receive", layer, micro_batch, now, now)
            if layer == self.layers:
                for source, _ in held.pop((layer, micro_batch)):
                    self.tell(rank, Arrived(Kind.GATHER, layer, 0, source, 0, complete=True))
            elif len(held[layer, micro_batch]) == len(rank.plan.receives[layer + 1]):
                # Until all edges of the step have arrived, the state machine would do nothing.
                self.tell(rank, ArrivedEdges(layer, micro_batch, tuple(held.pop((layer, micro_batch)))))
