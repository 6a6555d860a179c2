"""Where a session keeps plans and runs, and what its ranks exchange frames over."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from fsd_inference.engine.spec import RunSpec
from fsd_inference.launch.place import Place
from fsd_inference.records import Usage
from fsd_inference.store.base import Store
from fsd_inference.store.open import open_store


class Home(Protocol):
    """Stores, and places for attempts."""

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""

    def place(self, spec: RunSpec) -> AbstractContextManager[Place]:
        """Return a context that holds what the attempt needs, such as a lane, and gives its `Place`."""

    def usage(self) -> Usage:
        """Return all requests of this process so far."""

    def close(self) -> None:
        """Release everything, what was made for the session alone included."""


class LocalHome:
    """A folder on this machine, gone with the session; frames go over sockets (channel "memory")."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="fsd-"))
        self._url = (self._folder / "store").as_uri()
        self._store = open_store(self._url)

    @property
    def plans(self) -> Store:
        """Holds manifests and shards."""
        return self._store

    @property
    def runs(self) -> Store:
        """Holds inputs and results."""
        return self._store

    @contextmanager
    def place(self, spec: RunSpec) -> Iterator[Place]:
        """Give the place of an attempt; there is nothing to hold."""
        yield Place(spec, "memory", store=self._url)

    def usage(self) -> Usage:
        """Return all requests of this process so far."""
        return self._store.meter.snapshot()

    def close(self) -> None:
        """Remove the folder."""
        self._store.close()
        shutil.rmtree(self._folder, ignore_errors=True)
