"""Models of services that answer request by request, with or without sharing a host's processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fsd_inference.forecast.timing import REQUESTS
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.services import Services
from tests.support.one_by_one.host import Host
from tests.support.one_by_one.processors import Server, SharedProcessors


class EventServices(Services):
    """Services that are simulated request by request, with the number of messages of each request."""

    def send(
        self, rank: Rank, name: str, up: float, down: float, messages: int, call: Callable[..., None], *rest: Any
    ) -> None:
        """Send a request with a number of messages, and call a function when it is answered."""
        now = self.clock.now
        self.clock.at(now + self.request_s(rank, name, up, down, messages, now), call, *rest)

    def request(self, rank: Rank, name: str, up: float, down: float, call: Callable[..., None], *rest: Any) -> None:
        """See `Services`."""
        self.send(rank, name, up, down, 0, call, *rest)


class HostServices(EventServices):
    """Services on one host, whose cores they share with all work of the ranks.

    Parameters
    ----------
    host : Host
        The host and its emulator.
    *given
        Parameters of `Services`.
    """

    def __init__(self, host: Host, *given: Any) -> None:
        super().__init__(*given)
        self.processors = SharedProcessors(self.clock, host.cores, host.others)
        self._server = Server(self.processors)
        values = host.values
        self._served_s = {
            name: (values[f"server.{name}_s"], 1 / values[f"server.{name}_bytes_per_s"]) for name in REQUESTS
        }
        self._delivered_s = values["server.message_s"]
        self._look_s = values["server.look_s"], values["server.hidden_s"]

    def work(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """See `Services`: the host's cores take turns."""
        self.processors.run(seconds, call, *arguments)

    def send(
        self, rank: Rank, name: str, up: float, down: float, messages: int, call: Callable[..., None], *rest: Any
    ) -> None:
        """See `EventServices`."""
        work = self.request_work_s(rank, name, messages, up + down)
        self.processors.run(work, self._ask, rank, name, up, down, messages, call, rest)

    def ask_to_receive(self, rank: Rank, call: Callable[..., None], *rest: Any) -> None:
        """Send a receive request, and call a function when the service has it; `look` and `hand` model the response."""
        work, served = self.request_work_s(rank, "receive", 0, 0.0), self._served_s["receive"][0]
        self.processors.run(work, self._server.serve, served, call, *rest)

    def look(self, hidden: int, call: Callable[..., None], *rest: Any) -> None:
        """Check a queue that holds `hidden` invisible messages, and call a function when done."""
        each_s, hidden_s = self._look_s
        self._server.serve(each_s + hidden * hidden_s, call, *rest)

    def hand(self, rank: Rank, messages: int, size: float, call: Callable[..., None], *rest: Any) -> None:
        """Respond to a receive request with messages, and call a function when the rank has processed them."""
        served = size * self._served_s["receive"][1]
        self._server.serve(served, self._handed, rank, messages, size, call, rest)

    def _handed(self, rank: Rank, messages: int, size: float, call: Callable[..., None], rest: tuple[Any, ...]) -> None:
        work = self.request_work_s(rank, "receive", messages, size) - self.request_work_s(rank, "receive", 0, 0.0)
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
