"""The executor protocol, which carries out the attempts of a session, and its implementation on local sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec, run_folder
from fsd_inference.launch.attempt import run_attempt
from fsd_inference.launch.server import Server
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.store.open import open_store
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.usage import Usage


class Executor(Protocol):
    """The backend that carries out attempts and holds the stores that they use."""

    @property
    def plans(self) -> Store:
        """Store of manifests, plans and shards."""

    @property
    def runs(self) -> Store:
        """Store of inputs, results and reports."""

    @property
    def stack(self) -> StackSpec | None:
        """The stack whose services are used, or None."""

    def memory_mb(self, spec: RunSpec) -> int | None:
        """Return the memory size in MB of the functions that would carry out a run; None for processes."""

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Carry out one attempt; its deadline is set when it is launched.

        Parameters
        ----------
        spec : RunSpec
            The attempt; its input is already in `runs`.
        on_layer : callable
            Called with the number of completed layers.
        """

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if there is none."""

    def forget(self, run: str) -> None:
        """Delete the objects of a run that has ended."""

    def usage(self) -> Usage:
        """Return the usage so far, without that of the ranks."""

    def close(self) -> None:
        """Release all resources, including a store or stack created for this session."""


class LocalExecutor:
    """Executor of channel "local": processes of this machine that share a temporary folder and exchange over sockets.

    Parameters
    ----------
    server : Server
        The session's fork server, closed by `close`.
    delay_s : float, optional
        Latency added to every frame, in seconds.
    on_wait : callable, optional
        Called with a description of what is waited for: a slow rank.
    """

    def __init__(self, server: Server, delay_s: float = 0.0, on_wait: Callable[[str], None] = lambda _: None) -> None:
        self._server = server
        self._on_wait = on_wait
        self._delay_s = delay_s
        self._folder = TemporaryFolder("session")
        self._url = (self._folder.path / "store").as_uri()
        self._store = open_store(self._url)

    @property
    def plans(self) -> Store:
        """Store of manifests, plans and shards."""
        return self._store

    @property
    def runs(self) -> Store:
        """Store of inputs, results and reports."""
        return self._store

    @property
    def stack(self) -> None:
        """None: no stack is used."""

    def memory_mb(self, spec: RunSpec) -> None:
        """Return None: the ranks are processes."""

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Carry out one attempt with local processes."""
        timed = replace(spec, deadline=time.time() + spec.settings.clocks.run_s)
        launch = LaunchSpec(timed, "local", store=self._url, delay_s=self._delay_s)
        return run_attempt(launch, self._server, self._store, on_layer, self._on_wait)

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if there is none."""
        return self._store.get(spec.result_key(rank))

    def forget(self, run: str) -> None:
        """Delete the objects of a run."""
        self._store.delete([info.key for info in self._store.list(run_folder(run))])

    def usage(self) -> Usage:
        """Return the usage so far, without that of the ranks."""
        return self._store.meter.snapshot()

    def close(self) -> None:
        """End the fork server, close the store and remove its folder."""
        self._server.close()
        self._store.close()
        self._folder.close()
