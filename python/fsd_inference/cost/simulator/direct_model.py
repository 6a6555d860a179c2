"""Messages straight from rank to rank, with no service in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsd_inference.channels.base import Expected
from fsd_inference.cost.simulator.rank import Rank
from fsd_inference.cost.simulator.scenario import Scenario
from fsd_inference.cost.simulator.services import Listener, Services
from fsd_inference.cost.simulator.traffic import Outgoing


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
        for reader in outgoing.readers(rank.number):
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
