"""The simulated `direct` channel: MicroVMs that send each other frames over open connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import Step
from fsd_inference.forecast.frames import Outgoing
from fsd_inference.forecast.speed import burst_vcpus
from fsd_inference.simulator.channels import Incoming, StepModel
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.resources import Bandwidth
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.simulator.services import Listener, Services


class MicrovmModel(StepModel):
    """A model of direct messages, each of which passes the endpoint of the MicroVM that it is for.

    An endpoint passes messages one after the other, in the order in which they were sent.
    """

    def __init__(self, services: Services, scenario: Scenario, ranks: list[Rank], listener: Listener) -> None:
        super().__init__(services, scenario, ranks, listener)
        rate = scenario.timing["endpoint.bytes_per_vcpu_s"] * burst_vcpus(scenario.memory_mb)
        self._endpoints = [Bandwidth(min(rate, scenario.timing["network.bytes_per_s"])) for _ in ranks]
        self._connected: set[tuple[int, int]] = set()

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """See `ChannelModel`."""
        services, usage = self.services, self.services.usage
        sent, own = services.clock.now, outgoing.sent[rank.number]
        usage.body_bytes -= round(own.body_bytes)  # each target is sent its own copy
        arrivals: list[float] = []
        for reader in outgoing.readers(rank.number):
            if (rank.number, reader.target) not in self._connected:
                self._connected.add((rank.number, reader.target))
                services.count("microvm.connect")
            usage.body_bytes += round(reader.size)
            usage.received_bytes += round(reader.size)
            sent += services.request_work_s(rank, "put", 0, reader.size)
            at_endpoint = sent + rank.up.pass_s(sent, reader.size) + services.draws.latency("frame")
            arrives = at_endpoint + self._endpoints[reader.target].pass_s(at_endpoint, reader.size)
            arrivals += [arrives] * reader.frames
        if key.kind is Kind.GATHER:
            self.tell(rank, outgoing, arrivals[-1])
        else:
            self.on_its_way(outgoing, key, own.first, arrivals)
        services.clock.at(sent, call, *rest)

    def receive(self, rank: Rank, step: Step, incoming: Incoming, since: float) -> float:  # noqa: ARG002
        """See `StepModel`."""
        sources, times, sizes = incoming.of(rank.number)
        each_s, byte_s = self.services.get_work_s(rank)
        return max([since, *times]) + len(set(sources)) * each_s + sum(sizes) * byte_s
