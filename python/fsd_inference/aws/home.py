"""A session's stores and lanes on a stack: one that stands, or an emulated one made for the session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.local import bring_up, take_down
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.channels.object import sweep
from fsd_inference.engine.driver import POLL_S
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FsdError, SettingError
from fsd_inference.launch.place import Place
from fsd_inference.records import Usage, UsageMeter
from fsd_inference.store.base import Store

_LANE_WAIT_S = 120.0
"""How long an attempt waits for a lane that others hold."""


class AwsHome:
    """Buckets of a stack, and its lanes.

    Parameters
    ----------
    channel : {"queue", "object"}
        What the ranks will exchange frames over.
    stack : Path, optional
        The ``stack.json`` of a stack that stands; without it an emulated one is made, and goes with this.
    workers : int
        P; a stack must have as many ranks for "queue".
    """

    def __init__(self, channel: str, stack: Path | None, workers: int) -> None:
        self._channel = channel
        self._folder = Path(tempfile.mkdtemp(prefix="fsd-stack-")) if stack is None else None
        try:
            if self._folder is None:
                self._path = stack or Path()
            else:
                self._path = self._folder / "stack.json"
                made = bring_up(StackSettings(name="fsd-session", ranks=workers, purge_settle_s=0.0), tied=True)
                save_stack(made, self._path)
            self._stack = load_stack(self._path)
            if channel == "queue" and workers > self._stack.ranks:
                raise SettingError(
                    f"{self._path} has queues for {self._stack.ranks} workers, not {workers}; "
                    "use fewer, or make a stack with more ranks"
                )
            self._clients = Clients.of_stack(self._stack)
            self._meter = UsageMeter()
            self._runs, self._plans = open_buckets(self._clients, self._stack, self._meter)
            self._lanes = open_lanes(self._runs[0], self._clients, self._stack, meter=self._meter)
        except BaseException:
            self._remove()
            raise

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""
        return self._plans

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""
        return self._runs[0]

    @contextmanager
    def place(self, spec: RunSpec) -> Iterator[Place]:
        """Hold what an attempt needs, and give its place."""
        place = Place(spec, self._channel, stack=str(self._path.absolute()))
        if self._channel == "object":
            try:
                yield place
            finally:
                _clean_up(sweep, self._runs, spec.run)
            return
        lease = self._lanes.acquire(spec.run, spec.attempt, spec.settings.clocks.run_s, _LANE_WAIT_S)
        open_poll_s = POLL_S  # ranks that were stopped may have left one, which takes what the next holder sends
        try:
            yield replace(place, lane=lease.lane)
            open_poll_s = 0.0
        finally:
            _clean_up(self._lanes.release, lease, open_poll_s)

    def usage(self) -> Usage:
        """Return all requests of this process so far."""
        return self._meter.snapshot()

    def close(self) -> None:
        """Close what is open, and take down a stack that was made for the session."""
        for store in (*self._runs, self._plans):
            store.close()
        self._clients.close()
        self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            if (self._folder / "stack.json").exists():
                take_down(load_stack(self._folder / "stack.json"))
            shutil.rmtree(self._folder, ignore_errors=True)


def _clean_up(work: Callable[..., None], *arguments: object) -> None:
    """Clean up; what that fails to do expires by itself, and must not hide how the run ended."""
    with suppress(FsdError):
        work(*arguments)
