"""Requests to services: what they take, and what they count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fsd_inference.channels.base import Expected
from fsd_inference.config import RetrySettings
from fsd_inference.cost.simulator.clock import Clock
from fsd_inference.cost.simulator.rank import Message, Rank
from fsd_inference.cost.simulator.resources import Draws, Processors, Server
from fsd_inference.cost.simulator.scenario import Scenario
from fsd_inference.cost.simulator.traffic import Outgoing
from fsd_inference.cost.work import Speed
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.records import Usage


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
    connection : float
        Bytes a second of a single transfer.
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
        self.connection = timing["connection.bytes_per_s"]
        self._served_s = timing["server.request_s"], timing["server.message_s"]

    def request(
        self, rank: Rank, latency: str, up: float, down: float, messages: int, call: Callable[..., None], *rest: Any
    ) -> None:
        """Call when a request has been answered: `up` and `down` are bytes of bodies, one of them none."""
        work = (self._request_s + messages * self._message_s + (up + down) * self._byte_s) / rank.speed
        self.processors.run(work, self._ask, rank, latency, up, down, messages, call, rest)

    def request_s(self, rank: Rank, latency: str, up: float, down: float, messages: int, start: float) -> float:
        """Return how long a request takes that is begun at `start`, where processors are the rank's own."""
        size = up + down
        work = (self._request_s + messages * self._message_s + size * self._byte_s) / rank.speed
        if not size:
            return work + self.draws.latency(latency)
        passing = (rank.up if up else rank.down).pass_s(start + work, size)
        return work + self.draws.latency(latency) + max(size / self.connection, passing)

    def work_s(self, rank: Rank) -> tuple[float, float]:
        """Return the processor seconds that a request takes before it goes out, and those of each of its bytes."""
        return self._request_s / rank.speed, self._byte_s / rank.speed

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
        now, size = self.clock.now, up + down
        passing = 0.0
        if size:
            passing = max(size / self.connection, (rank.up if up else rank.down).pass_s(now, size))
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
