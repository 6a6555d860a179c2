"""The executor of local processes over the services of a stack: an existing stack, or an emulated temporary one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.keeping import Keeper
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.local import bring_up, take_down
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.channels.object import sweep
from fsd_inference.deadlines import cleaning_up
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec, run_folder
from fsd_inference.errors import FsdError, SettingError, client_operation
from fsd_inference.launch.attempt import run_attempt
from fsd_inference.launch.server import Server
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.limits import LANE_WAIT_S, LONGEST_POLL_S
from fsd_inference.logs import Logger
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.temporary import TemporaryFolder, finalizer
from fsd_inference.usage import Usage, UsageMeter

_log = Logger(__name__)


class StackExecutor:
    """Runs ranks as processes of this machine that use the buckets and lanes of a stack.

    Parameters
    ----------
    channel : {"queue", "object"}
        The channel over which ranks exchange frames.
    stack : Path, optional
        The ``stack.json`` of an existing stack; without it an emulated stack is started, and taken down in `close`.
    workers : int
        Number of workers P; for "queue" the stack must have queues for at least as many ranks.
    server : Server
        The session's fork server, closed by `close`.
    delay_s : float, optional
        Latency added to every frame, in seconds.
    on_wait : callable, optional
        Called with a description of what is waited for: a slow emulator, a lane that other runs hold, or a slow rank.
    """

    def __init__(
        self,
        channel: str,
        stack: Path | None,
        workers: int,
        server: Server,
        delay_s: float = 0.0,
        on_wait: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._channel = channel
        self._on_wait = on_wait
        self._delay_s = delay_s
        self._server = server
        self._made = ExitStack()
        # Garbage collection frees stores and clients, but does not stop an emulator.
        self._finalizer = finalizer(self, self._made.close)
        try:
            if stack is not None:
                self._path = stack
            else:
                self._path = self._made.enter_context(TemporaryFolder("stack")) / "stack.json"
                made = bring_up(
                    StackSettings(name="fsd-session", ranks=workers, purge_settle_s=0.0), tied=True, on_wait=on_wait
                )
                self._made.callback(take_down, made)
                save_stack(made, self._path)
            self._stack = load_stack(self._path)
            if channel == "queue" and workers > self._stack.ranks:
                raise SettingError(
                    f"{self._path} has queues for {self._stack.ranks} workers, not {workers}; "
                    "use fewer workers, or create a stack with more ranks"
                )
            self._clients = Clients.of_stack(self._stack)
            self._meter = UsageMeter()
            self._runs, self._plans = open_buckets(self._clients, self._stack, self._meter)
            self._lanes = open_lanes(self._runs[0], self._clients, self._stack, meter=self._meter)
        except BaseException:
            self._finalizer()
            raise

    @property
    def plans(self) -> Store:
        """Store of manifests, plans and shards."""
        return self._plans

    @property
    def runs(self) -> Store:
        """Store of inputs, results and reports."""
        return self._runs[0]

    @property
    def stack(self) -> StackSpec:
        """The stack whose services are used."""
        return self._stack

    def memory_mb(self, spec: RunSpec) -> None:
        """Return None: the ranks are processes."""

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Carry out one attempt with local processes; lease a lane for its duration if the channel is "queue"."""
        if self._channel == "object":
            try:
                return self._run(spec, None, on_layer)
            finally:
                self._sweep(spec.run)
        # Killed ranks may leave a long poll open, which would take messages of the next holder.
        with ExitStack() as held:
            with client_operation("lease", "leasing a lane"):
                holding, keeper = held.enter_context(
                    self._lanes.keep(spec.run, spec.attempt, LANE_WAIT_S, LONGEST_POLL_S, self._on_wait)
                )
            ended = self._run(spec, keeper, on_layer)
            if ended.error is None:
                holding.ended_well(ended.reports)
            return ended

    def _run(self, spec: RunSpec, keeper: Keeper | None, on_layer: Callable[[float], None]) -> Ended:
        # The wait for a lane does not count: the run's deadline starts now.
        timed = replace(spec, deadline=time.time() + spec.settings.clocks.run_s)
        lane = None if keeper is None else keeper.lease.lane
        launch = LaunchSpec(timed, self._channel, stack=str(self._path.absolute()), lane=lane, delay_s=self._delay_s)
        lost = None if keeper is None else lambda: keeper.lost
        lane_s = 0.0 if keeper is None else self._stack.purge_settle_s
        return run_attempt(launch, self._server, self._runs[0], on_layer, self._on_wait, lost, lane_s)

    def _sweep(self, run: str) -> None:
        """Delete the frames of a run; a failure must not hide how the run ended."""
        try:
            with cleaning_up():
                sweep(self._runs, run)
        except FsdError as error:
            _log.of(run=run).warning("frames of the run were not deleted, and expire: %s", error)

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if there is none."""
        return self._runs[0].get(spec.result_key(rank))

    def forget(self, run: str) -> None:
        """Delete the objects of a run."""
        self._runs[0].delete([info.key for info in self._runs[0].list(run_folder(run))])

    def usage(self) -> Usage:
        """Return the usage so far, without that of the ranks."""
        return self._meter.snapshot()

    def close(self) -> None:
        """End the fork server, close stores and clients, and take down the stack if it was created for this session."""
        self._server.close()
        for store in (*self._runs, self._plans):
            store.close()
        self._clients.close()
        self._finalizer()
