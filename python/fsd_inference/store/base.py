"""The interface of object stores: reads of whole objects or byte ranges, and unconditional and conditional writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from fsd_inference.config import RetrySettings
from fsd_inference.usage import UsageMeter


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Metadata of an object: key, size in bytes, version tag (ETag), and time of writing (UTC, the store's clock)."""

    key: str
    size: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The content of an object, with the tag of the version that was read."""

    data: bytes
    etag: str


class Readable(Protocol):
    """Where whole objects and ranges are read from: a store, or a cache of it."""

    def get(self, key: str) -> bytes | None:
        """Return the content of the whole object, or None if it does not exist."""

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Return up to `length` bytes from offset `start` (fewer at the end), or None if the object does not exist."""


class Store(ABC):
    """An object store. Reading an absent object returns None; a failed request raises `StoreError`.

    Keys are relative, '/'-separated paths of the characters ``A-Za-z0-9._-``, without empty, ``.`` or ``..`` parts, at
    most 200 characters per part and 900 in total; other keys raise `StoreError`. A key must not also be the folder of
    other keys. Writes are atomic: a reader sees the whole old object or the whole new one. All methods are thread-safe.
    `meter` counts every request, retry and miss.
    """

    meter: UsageMeter

    def retrying(self, retry: RetrySettings, wait: Callable[[float], object]) -> Store:  # noqa: ARG002
        """Return this store with other retries; the caller closes only the original.

        Parameters
        ----------
        retry : RetrySettings
            Retries of throttled and failed requests. A store that sends none ignores it.
        wait : callable
            Waits for a number of seconds before a retry; may raise to end the request.
        """
        return self

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """Return the content of the whole object, or None if it does not exist."""

    @abstractmethod
    def get_object(self, key: str) -> StoredObject | None:
        """Return the whole object with its version tag, or None if it does not exist."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Return up to `length` bytes from offset `start` (fewer at the end), or None if the object does not exist."""

    @abstractmethod
    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        """Return several (start, length) ranges of one object, in order; nearby ranges may share a request."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> str:
        """Write the object and return its version tag."""

    def put_file(self, key: str, path: Path, advance: Callable[[int], None]) -> int:
        """Write the content of a file as the object, and return how many bytes were sent.

        An upload of a large file that was broken off is continued where the store can. `advance` is called from any
        thread with the number of bytes by which the upload has advanced, negative if some have to be sent again; an
        exception that it raises ends the upload.
        """
        data = path.read_bytes()
        self.put(key, data)
        advance(len(data))
        return len(data)

    @abstractmethod
    def put_if_absent(self, key: str, data: bytes) -> str | None:
        """Write the object and return its tag, unless it exists already; then return None."""

    @abstractmethod
    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        """Replace version `etag` of the object and return the new tag; return None if it was changed or deleted."""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Return the object's metadata, or None if it does not exist."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield metadata of all objects in folder `prefix` (empty, or ending with '/') and below, sorted by key."""

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; absent ones are ignored."""

    @abstractmethod
    def close(self) -> None:
        """Release the store's resources, such as threads."""
