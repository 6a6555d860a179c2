"""Two programs that run inference over and over at the same time, watched for what they use and for what they leave."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fsd_inference.chaos.client import Request
from fsd_inference.chaos.processes import Resources, fork_server_of, resources_of
from fsd_inference.chaos.running import Client
from fsd_inference.chaos.site import Site
from fsd_inference.errors import StackError

COLUMNS = ("program", "runs", "wrong", "memory MB", "descriptors", "threads", "flat")
"""Columns of the table; what is used is given early and late, of the program and its fork server together."""

_CHANNELS = ("queue", "object")
_WORKERS = 3
_SAMPLE_S = 1.0
_PREPARE_S = 120.0
_END_S = 60.0
_MORE_MEMORY = 1.05
_SPARE_BYTES = 4 << 20
"""Growth of memory that is no leak: caches and fragmentation."""
_SPARE = 2
"""Descriptors and threads by which two moments of the same program differ: a request, a child."""


@dataclass(slots=True)
class Soaked:
    """What became of one of the programs.

    Attributes
    ----------
    channel : str
    runs, wrong : int
        Number of its runs, and of those that gave another answer or an error.
    samples : list of Resources
        What it used, once a second.
    ended_well : bool
        Whether it ended when it was told to.
    """

    channel: str
    runs: int = 0
    wrong: int = 0
    samples: list[Resources] = field(default_factory=list)
    ended_well: bool = True

    @property
    def early(self) -> Resources:
        """The medians of the second fifth of the time, when all has been imported and every pool is filled."""
        fifth = len(self.samples) // 5
        return _median(self.samples[fifth : 2 * fifth] or self.samples)

    @property
    def late(self) -> Resources:
        """The medians of the last fifth."""
        return _median(self.samples[-(len(self.samples) // 5) :])

    @property
    def is_flat(self) -> bool:
        """Whether it used no more late than early."""
        early, late = self.early, self.late
        return (
            late.memory <= early.memory * _MORE_MEMORY + _SPARE_BYTES
            and late.descriptors <= early.descriptors + _SPARE
            and late.threads <= early.threads + _SPARE
        )

    def row(self) -> tuple[object, ...]:
        """Return the row of the table."""
        early, late = self.early, self.late
        return (
            self.channel,
            self.runs,
            self.wrong,
            f"{early.memory / 2**20:.0f} to {late.memory / 2**20:.0f}",
            f"{early.descriptors} to {late.descriptors}",
            f"{early.threads} to {late.threads}",
            "yes" if self.is_flat else "no",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "channel": self.channel,
            "runs": self.runs,
            "wrong": self.wrong,
            "early": asdict(self.early),
            "late": asdict(self.late),
            "flat": self.is_flat,
            "ended_well": self.ended_well,
        }


@dataclass(frozen=True, slots=True)
class Soak:
    """What became of a soak: its programs, and what was left on the stack."""

    programs: tuple[Soaked, ...]
    left: tuple[str, ...]

    @property
    def is_good(self) -> bool:
        """Whether all answers were right, nothing grew, and nothing was left."""
        return not self.left and all(
            program.is_flat and program.ended_well and program.runs > 0 and not program.wrong
            for program in self.programs
        )


def soak(
    seconds: float,
    site: Site,
    folder: Path,
    right: str,
    advance: Callable[[float], None] = lambda _: None,
    channels: Sequence[str] = _CHANNELS,
) -> Soak:
    """Have two programs run for some time on the same stack, and return what became of them.

    Parameters
    ----------
    seconds : float
        How long they begin runs.
    site : Site
        The stack.
    folder : Path
        Directory for temporary files.
    right : str
        Digest of the right answer.
    advance : callable, optional
        Called with the seconds that have passed.
    channels : sequence of str, optional
        The channel of each program.

    Raises
    ------
    StackError
        A program could not prepare its runs.
    """
    with ExitStack() as opened:
        clients = []
        for number, channel in enumerate(channels):
            request = Request(channel, _WORKERS, 2, 1, str(site.direct), delay_s=0.0, runs=None)
            clients.append(opened.enter_context(Client(request, folder / f"soak-{number}")))
        for client in clients:
            if not client.prepared(_PREPARE_S):
                raise StackError(f"a program of the soak could not prepare its runs: {client.errors[-300:]}")
        found = tuple(Soaked(channel) for channel in channels)
        for client in clients:
            client.go()
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            time.sleep(min(_SAMPLE_S, seconds - passed))
            for client, program in zip(clients, found, strict=True):
                used = _used(client)
                program.samples += [] if used is None else [used]
            advance(passed)
        for client in clients:
            client.stop()
        for client, program in zip(clients, found, strict=True):
            program.ended_well = client.ends(_END_S) == 0
            program.runs = len(client.answers)
            program.wrong = sum(answer.get("digest") != right for answer in client.answers)
    folders = tuple(f"folder {entry}" for entry in sorted(folder.glob("soak-*/*")))
    return Soak(found, folders + site.left().what)


def _used(client: Client) -> Resources | None:
    server = fork_server_of(client.pid)
    parts = [resources_of(client.pid), None if server is None else resources_of(server)]
    return None if parts[0] is None or parts[1] is None else parts[0] + parts[1]


def _median(samples: Sequence[Resources]) -> Resources:
    if not samples:
        return Resources(0, 0, 0)
    return Resources(
        *(
            int(statistics.median(getattr(sample, name) for sample in samples))
            for name in ("memory", "descriptors", "threads")
        )
    )
