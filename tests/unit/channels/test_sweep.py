"""Deleting the frames of a run: all of them, none of others, and many requests at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from fsd_inference.channels.object import sweep
from fsd_inference.limits import HASH_FOLDERS
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore

RUN, OTHER = "a" * 32, "b" * 32


class Met(MemoryStore):
    """A store that answers listings only when all of them are under way."""

    all_asked = threading.Barrier(len(HASH_FOLDERS))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.all_asked.wait(30)
        return super().list(prefix)


def test_folders_are_swept_side_by_side() -> None:
    store = Met()
    for folder in HASH_FOLDERS:
        for run in (RUN, OTHER):
            store.put(f"{folder}/{run}/0/data-0-0-1", b"")
    sweep([store], RUN)
    kept = [info.key for info in MemoryStore.list(store, "")]
    assert kept == [f"{folder}/{OTHER}/0/data-0-0-1" for folder in HASH_FOLDERS]
