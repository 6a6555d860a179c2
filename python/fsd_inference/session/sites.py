"""Where a session's ranks are: processes of this machine, or functions of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fsd_inference.config import RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.session.home import Home, LocalHome
from fsd_inference.session.memory_need import estimate_mb
from fsd_inference.session.progress import Progress, task, told_of_waits
from fsd_inference.session.source import Placed, Source
from fsd_inference.stack_description import StackSpec

# boto3 takes a third of a second to import, which sessions without AWS need not wait for.


class Site(Protocol):
    """Opens a home, and has the network's plan where its ranks read it."""

    def open(self) -> Home:
        """Open a home."""

    def place(self, home: Home) -> Placed:
        """Put the plan there, or find it."""


class Processes:
    """Processes of this machine, over sockets or a stack; the network is cut and uploaded.

    Parameters
    ----------
    channel : {"memory", "queue", "object"}
    source : Source
    stack : Path, optional
        Without one, "queue" and "object" make an emulated stack that goes with the home.
    delay_s : float
        Latency added on the way of every frame.
    progress : Progress
    """

    def __init__(self, channel: str, source: Source, *, stack: Path | None, delay_s: float, progress: Progress) -> None:
        self._channel = channel
        self._source = source
        self._stack = stack
        self._delay_s = delay_s
        self._progress = progress

    def open(self) -> Home:
        """Open a home; what cannot be cut is found out first."""
        self._source.cut(self._progress)
        if self._channel == "memory":
            return LocalHome(self._delay_s)
        from fsd_inference.session.aws_home import AwsHome  # noqa: PLC0415 - see the module

        with task(self._progress, "stack"):
            return AwsHome(
                self._channel, self._stack, self._source.workers, self._delay_s, told_of_waits(self._progress)
            )

    def place(self, home: Home) -> Placed:
        """Upload the shards."""
        return self._source.upload(home.plans, self._progress)


class Functions:
    """Functions of a stack, to which the network was pushed.

    Parameters
    ----------
    channel : {"serial", "queue", "object"}
    source : Source
    settings : RunSettings
    stack, described
        The ``stack.json``, and what it says.
    replicas : int
        Runs at a time.
    memory_mb, synchronous
        See `Session`.
    progress : Progress
    """

    def __init__(
        self,
        channel: str,
        source: Source,
        settings: RunSettings,
        *,
        stack: Path,
        described: StackSpec,
        replicas: int,
        memory_mb: int | None,
        synchronous: bool,
        progress: Progress,
    ) -> None:
        self._channel = channel
        self._source = source
        self._settings = settings
        self._stack, self._described = stack, described
        self._replicas = replicas
        self._memory_mb, self._synchronous = memory_mb, synchronous
        self._progress = progress

    def open(self) -> Home:
        """Open a home."""
        from fsd_inference.aws.lambda_home import LambdaHome  # noqa: PLC0415 - see the module

        with task(self._progress, "stack"):
            return LambdaHome(
                self._channel,
                self._described,
                self._settings,
                need_mb=self._need_mb,
                memory_mb=self._memory_mb,
                synchronous=self._synchronous,
                runs=self._replicas,
                on_wait=told_of_waits(self._progress),
            )

    def place(self, home: Home) -> Placed:
        """Find what was pushed."""
        return self._source.find(home.plans, self._stack)

    def _need_mb(self, spec: RunSpec) -> float:
        assert self._source.manifest is not None  # noqa: S101 - there is a plan before there is a run
        return estimate_mb(self._source.manifest, spec)
