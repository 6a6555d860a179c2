"""What a store is: named objects, read whole or by range, written if absent or if unchanged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from fsd_inference.usage import UsageMeter


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object's key, size in bytes, version tag, and when the store says it was written (UTC)."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's bytes with the tag of the version that was read."""

    data: bytes
    etag: str


class Store(ABC):
    """Named objects. Absent is never failed: absent reads return None, failures raise `StoreError`.

    Keys are relative, '/'-separated, of the characters ``A-Za-z0-9._-``, without empty, ``.`` or ``..`` parts, of at
    most 200 characters a part and 900 in all; others raise `StoreError`. A key is not also used as a folder of others.
    Writes are atomic: a reader sees the whole old object or the whole new one. All methods may be called from
    several threads. `meter` counts every request, retry and miss.
    """

    meter: UsageMeter

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the whole object, or None if there is none."""

    @abstractmethod
    def get_object(self, key: str) -> StoredObject | None:
        """Return the whole object with its version tag, or None if there is none."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Return up to `length` bytes from `start` (fewer at the end), or None if there is no object."""

    @abstractmethod
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Return several (start, length) pieces, in order; neighbours may be fetched together."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write the object and return its version tag."""

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """Write the object if there is none and return its tag; None if there already is one."""

    @abstractmethod
    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace the version `etag` and return the new tag; None if the object has changed or gone."""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Return the object's description, or None if there is none."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with the folder `prefix` (ends with '/', or is empty), by key."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over."""

    @abstractmethod
    def close(self) -> None:
        """Release what the store holds."""
