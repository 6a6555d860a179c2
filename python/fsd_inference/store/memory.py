"""An object store in this process's memory, for tests and for ranks that are threads of one process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fsd_inference.store.base import ObjectInfo, Store, StoredObject
from fsd_inference.store.keys import check_key, check_prefix, check_range
from fsd_inference.usage import UsageMeter


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Entry:
    data: bytes
    etag: str
    modified: datetime


class MemoryStore(Store):
    """An object store that is a dict in memory. It sends no requests, so `meter` counts misses only.

    Parameters
    ----------
    clock : callable, optional
        Returns the store's current time (UTC); tests pass their own.
    meter : UsageMeter, optional
        Counts misses.
    """

    def __init__(self, *, clock: Callable[[], datetime] = _now, meter: UsageMeter | None = None) -> None:
        self.meter = meter or UsageMeter()
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._versions = itertools.count(1)

    def get(self, key: str) -> bytes | None:
        entry = self._find(key)
        return None if entry is None else entry.data

    def get_object(self, key: str) -> StoredObject | None:
        entry = self._find(key)
        return None if entry is None else StoredObject(entry.data, entry.etag)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        pieces = self.get_ranges(key, [(start, length)])
        return None if pieces is None else pieces[0]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        for start, length in ranges:
            check_range(key, start, length)
        entry = self._find(key)
        return None if entry is None else [entry.data[start : start + length] for start, length in ranges]

    def put(self, key: str, data: bytes) -> str:
        check_key(key)
        with self._lock:
            return self._write(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        check_key(key)
        with self._lock:
            return None if key in self._entries else self._write(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        check_key(key)
        with self._lock:
            entry = self._entries.get(key)
            return None if entry is None or entry.etag != etag else self._write(key, data)

    def stat(self, key: str) -> ObjectInfo | None:
        entry = self._find(key)
        return None if entry is None else ObjectInfo(key, len(entry.data), entry.etag, entry.modified)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        with self._lock:
            found = sorted((key, entry) for key, entry in self._entries.items() if key.startswith(prefix))
        return (ObjectInfo(key, len(entry.data), entry.etag, entry.modified) for key, entry in found)

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            check_key(key)
            with self._lock:
                self._entries.pop(key, None)

    def close(self) -> None:
        with self._lock:
            self._entries.clear()

    def _find(self, key: str) -> _Entry | None:
        check_key(key)
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            self.meter.miss()
        return entry

    def _write(self, key: str, data: bytes) -> str:
        entry = _Entry(bytes(data), f"v{next(self._versions)}", self._clock())
        self._entries[key] = entry
        return entry.etag
