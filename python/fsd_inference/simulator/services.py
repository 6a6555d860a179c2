"""Requests of simulated ranks: how long they take, and what they count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fsd_inference.channels.base import Expected
from fsd_inference.config import RetrySettings
from fsd_inference.engine.messages import Step
from fsd_inference.errors import ChannelError
from fsd_inference.forecast.draws import Draws
from fsd_inference.forecast.frames import Outgoing
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.timing import REQUESTS
from fsd_inference.simulator.clock import Clock
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.scenario import Scenario
from fsd_inference.usage import Usage


class Listener(Protocol):
    """Hears what channels bring."""

    def came_all(self, rank: Rank, step: Step) -> None:
        """Say that all that a rank needs for a step has come."""

    def told(self, rank: Rank, child: int) -> None:
        """Say that a rank has heard from a child that its subtree is done."""

    def failed(self, rank: Rank, error: ChannelError) -> None:
        """Say that a request was refused too often."""


class Services:
    """The services that ranks use, and the processors that the ranks have for it.

    Parameters
    ----------
    scenario : Scenario
    clock, draws : Clock, Draws
        Time and chance.
    speed : Speed
        Of a rank's processors.

    Attributes
    ----------
    usage : Usage
        What was counted.
    connection : float
        Bytes a second of a single transfer.
    """

    def __init__(self, scenario: Scenario, clock: Clock, draws: Draws, speed: Speed) -> None:
        timing = scenario.timing
        self.clock, self.draws = clock, draws
        self.usage = Usage()
        self.retry = RetrySettings()
        self._request_s = {name: timing[f"cpu.{name}_s"] / speed.one for name in (*REQUESTS, "start")}
        self._message_s = timing["cpu.message_s"] / speed.one
        self._byte_s = {name: 1 / timing[f"cpu.{name}_bytes_per_s"] / speed.one for name in REQUESTS}
        self.connection = timing["connection.bytes_per_s"]

    def work(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call when a processor of a rank has worked for so many seconds: each rank has its own."""
        self.clock.at(self.clock.now + seconds, call, *arguments)

    def request(self, rank: Rank, name: str, up: float, down: float, call: Callable[..., None], *rest: Any) -> None:
        """Call when a request has been answered: `up` and `down` are bytes of bodies, one of them none."""
        now = self.clock.now
        self.clock.at(now + self.request_s(rank, name, up, down, 0, now), call, *rest)

    def request_s(self, rank: Rank, name: str, up: float, down: float, messages: int, start: float) -> float:
        """Return the seconds of a request that is begun at `start`, whose body carries so many messages."""
        size = up + down
        work = self.request_work_s(rank, name, messages, size)
        if not size:
            return work + self.draws.latency(name)
        passing = (rank.up if up else rank.down).pass_s(start + work, size)
        return work + self.draws.latency(name) + max(size / self.connection, passing)

    def request_work_s(self, rank: Rank, name: str, messages: int, size: float) -> float:
        """Return the processor seconds of a request."""
        work = self._request_s[name] + messages * self._message_s
        return (work + size * self._byte_s[name] if size else work) / rank.speed

    def get_work_s(self, rank: Rank) -> tuple[float, float]:
        """Return the processor seconds of a GET, and those of each of its bytes."""
        return self._request_s["get"] / rank.speed, self._byte_s["get"] / rank.speed

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
