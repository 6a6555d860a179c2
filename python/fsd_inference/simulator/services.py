"""Durations and usage counts of the requests that simulated ranks make to AWS."""

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
    """The callbacks by which a channel reports deliveries and failures to the simulation."""

    def came_all(self, rank: Rank, step: Step) -> None:
        """Handle that a rank has received everything that it needs for a step."""

    def told(self, rank: Rank, child: int) -> None:
        """Handle a child's message to its parent `rank` that the child's subtree is done."""

    def failed(self, rank: Rank, error: ChannelError) -> None:
        """Handle that a request was throttled until its retries were used up."""


class Services:
    """A model of the AWS services that ranks call: latency, transfer time and the caller's processor time.

    Parameters
    ----------
    scenario : Scenario
    clock, draws : Clock, Draws
        Virtual time and seeded random latencies.
    speed : Speed
        Speed of a rank's processors.

    Attributes
    ----------
    usage : Usage
        Requests counted so far.
    connection : float
        Bandwidth of a single transfer in bytes per second.
    """

    def __init__(self, scenario: Scenario, clock: Clock, draws: Draws, speed: Speed) -> None:
        timing = scenario.timing
        self.clock, self.draws = clock, draws
        self.usage = Usage()
        self.retry = RetrySettings(throttled_s=scenario.settings.clocks.stall_s)
        self._request_s = {name: timing[f"cpu.{name}_s"] / speed.one for name in (*REQUESTS, "start")}
        self._message_s = timing["cpu.message_s"] / speed.one
        self._byte_s = {name: 1 / timing[f"cpu.{name}_bytes_per_s"] / speed.one for name in REQUESTS}
        self.connection = timing["connection.bytes_per_s"]

    def work(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call after `seconds` of processor time; ranks do not wait for each other, as each has its own processors."""
        self.clock.at(self.clock.now + seconds, call, *arguments)

    def request(self, rank: Rank, name: str, up: float, down: float, call: Callable[..., None], *rest: Any) -> None:
        """Call when a request is answered; its body has `up` bytes sent or `down` bytes received, the other being 0."""
        now = self.clock.now
        self.clock.at(now + self.request_s(rank, name, up, down, 0, now), call, *rest)

    def request_s(self, rank: Rank, name: str, up: float, down: float, messages: int, start: float) -> float:
        """Return the duration in seconds of a request that begins at `start` and carries `messages` messages."""
        size = up + down
        work = self.request_work_s(rank, name, messages, size)
        if not size:
            return work + self.draws.latency(name)
        passing = (rank.up if up else rank.down).pass_s(start + work, size)
        return work + self.draws.latency(name) + max(size / self.connection, passing)

    def request_work_s(self, rank: Rank, name: str, messages: int, size: float) -> float:
        """Return the caller's processor time in seconds for a request with a body of `size` bytes."""
        work = self._request_s[name] + messages * self._message_s
        return (work + size * self._byte_s[name] if size else work) / rank.speed

    def get_work_s(self, rank: Rank) -> tuple[float, float]:
        """Return the caller's processor time in seconds for a GET, and for each byte of its body."""
        return self._request_s["get"] / rank.speed, self._byte_s["get"] / rank.speed

    def count(self, kind: str, billed: int = 1, *, repeat: bool = False) -> None:
        """Count a request and its billed units; `repeat` counts it as a retry too."""
        self.usage.requests[kind] += 1
        self.usage.billed_units[kind] += billed
        self.usage.retries += repeat

    def pause_s(self, tried: int, waited_s: float = 0.0) -> float | None:
        """Return the backoff in seconds after the `tried`-th refusal of a request; None if the retries are used up.

        `waited_s` is the time since the first attempt.
        """
        return self.retry.pause_s(tried, waited_s, self.draws.uniform, throttled=True)


class ChannelModel(Protocol):
    """The interface of a simulated channel."""

    def send(self, rank: Rank, outgoing: Outgoing, key: Expected, call: Callable[..., None], *rest: Any) -> None:
        """Send a rank's frames of a step; call when the service has accepted them."""

    def listen(self, rank: Rank) -> None:
        """Start to receive the steps that the rank's state machine expects."""
