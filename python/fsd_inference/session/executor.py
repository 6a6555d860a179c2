"""What carries out a session's attempts, and the stores it keeps plans and runs in."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec, run_folder
from fsd_inference.launch.attempt import run_attempt
from fsd_inference.launch.spec import LaunchSpec
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.store.open import open_store
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.usage import Usage


class Executor(Protocol):
    """Carries out attempts, and holds the stores that they use."""

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""

    @property
    def stack(self) -> StackSpec | None:
        """Whose services are used; None for none."""

    def memory_mb(self, spec: RunSpec) -> int | None:
        """Return the size of the functions that would carry out a run; None for processes."""

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Carry out one attempt, whose deadline is set when it is launched.

        Parameters
        ----------
        spec : RunSpec
            The attempt; the input is in `runs` already.
        on_layer : callable
            Called with the number of layers done.
        """

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if it is not there."""

    def forget(self, run: str) -> None:
        """Delete the objects of a run that nobody needs any more."""

    def usage(self) -> Usage:
        """Return all requests so far but those of the ranks."""

    def close(self) -> None:
        """Release everything, what was made for the session alone included."""


class LocalExecutor:
    """Processes of this machine that share a folder, gone with the session; frames go over sockets (channel "local").

    Parameters
    ----------
    delay_s : float, optional
        Latency added on the way of every frame.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self._delay_s = delay_s
        self._folder = TemporaryFolder("session")
        self._url = (self._folder.path / "store").as_uri()
        self._store = open_store(self._url)

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""
        return self._store

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""
        return self._store

    @property
    def stack(self) -> None:
        """Whose services are used: none."""

    def memory_mb(self, spec: RunSpec) -> None:
        """Return nothing: there are no functions."""

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        """Carry out one attempt over local processes."""
        timed = replace(spec, deadline=time.time() + spec.settings.clocks.run_s)
        return run_attempt(LaunchSpec(timed, "local", store=self._url, delay_s=self._delay_s), self._store, on_layer)

    def result(self, spec: RunSpec, rank: int) -> bytes | None:
        """Return the result object of a rank, or None if it is not there."""
        return self._store.get(spec.result_key(rank))

    def forget(self, run: str) -> None:
        """Delete the objects of a run."""
        self._store.delete([info.key for info in self._store.list(run_folder(run))])

    def usage(self) -> Usage:
        """Return all requests so far but those of the ranks."""
        return self._store.meter.snapshot()

    def close(self) -> None:
        """Remove the folder."""
        self._store.close()
        self._folder.close()
