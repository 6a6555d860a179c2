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
from fsd_inference.cost.timing import REQUESTS
from fsd_inference.cost.work import Speed
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.usage import Usage


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
        self._request_s = {name: timing[f"cpu.{name}_s"] / speed.one for name in (*REQUESTS, "start")}
        self._message_s = timing["cpu.message_s"] / speed.one
        self._byte_s = {name: 1 / timing[f"cpu.{name}_bytes_per_s"] / speed.one for name in REQUESTS}
        self.connection = timing["connection.bytes_per_s"]
        self._served_s = {
            name: (timing[f"server.{name}_s"], 1 / timing[f"server.{name}_bytes_per_s"]) for name in REQUESTS
        }
        self._delivered_s = timing["server.message_s"]
        self._look_s = timing["server.look_s"], timing["server.hidden_s"]

    def request(
        self, rank: Rank, latency: str, up: float, down: float, messages: int, call: Callable[..., None], *rest: Any
    ) -> None:
        """Call when a request has been answered: `up` and `down` are bytes of bodies, one of them none."""
        work = self._work(rank, latency, messages, up + down)
        self.processors.run(work, self._ask, rank, latency, up, down, messages, call, rest)

    def request_s(self, rank: Rank, latency: str, up: float, down: float, messages: int, start: float) -> float:
        """Return how long a request takes that is begun at `start`, where processors are the rank's own."""
        size = up + down
        work = self._work(rank, latency, messages, size)
        if not size:
            return work + self.draws.latency(latency)
        passing = (rank.up if up else rank.down).pass_s(start + work, size)
        return work + self.draws.latency(latency) + max(size / self.connection, passing)

    def _work(self, rank: Rank, request: str, messages: int, size: float) -> float:
        work = self._request_s[request] + messages * self._message_s
        return (work + size * self._byte_s[request] if size else work) / rank.speed

    def get_work_s(self, rank: Rank) -> tuple[float, float]:
        """Return the processor seconds that a GET takes before it goes out, and those of each of its bytes."""
        return self._request_s["get"] / rank.speed, self._byte_s["get"] / rank.speed

    def ask_to_receive(self, rank: Rank, call: Callable[..., None], *rest: Any) -> None:
        """Call when a service on the same host has a request to receive: what it answers, `look` and `hand` say."""
        work, served = self._request_s["receive"] / rank.speed, self._served_s["receive"][0]
        self.processors.run(work, self._server.serve, served, call, *rest)

    def look(self, hidden: int, call: Callable[..., None], *rest: Any) -> None:
        """Call when the service has looked at a queue, with so many hidden messages in it."""
        each_s, hidden_s = self._look_s
        self._server.serve(each_s + hidden * hidden_s, call, *rest)

    def hand(self, rank: Rank, messages: int, size: float, call: Callable[..., None], *rest: Any) -> None:
        """Call when a rank has taken in so many messages that the service answers with."""
        served = size * self._served_s["receive"][1]
        self._server.serve(served, self._handed, rank, messages, size, call, rest)

    def _handed(self, rank: Rank, messages: int, size: float, call: Callable[..., None], rest: tuple[Any, ...]) -> None:
        work = (messages * self._message_s + size * self._byte_s["receive"]) / rank.speed
        there = self.clock.now + self.draws.latency("receive") + self._passing(rank, 0.0, size)
        self.clock.at(there, self.processors.run, work, call, *rest)

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
        served = 0.0
        if latency in self._served_s:
            each_s, byte_s = self._served_s[latency]
            served = each_s + (up + down) * byte_s
        if latency == "publish":
            served += messages * self._delivered_s
        self._server.serve(served, self._answer, rank, latency, up, down, call, rest)

    def _answer(
        self, rank: Rank, latency: str, up: float, down: float, call: Callable[..., None], rest: tuple[Any, ...]
    ) -> None:
        passing = self._passing(rank, up, down)
        self.clock.at(self.clock.now + self.draws.latency(latency) + passing, call, *rest)

    def _passing(self, rank: Rank, up: float, down: float) -> float:
        size = up + down
        if not size:
            return 0.0
        return max(size / self.connection, (rank.up if up else rank.down).pass_s(self.clock.now, size))

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
