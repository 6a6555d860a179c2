"""A cache of immutable objects on a function's local disk, which outlives single runs.

On Lambda Managed Instances several processes of a function share its disk, and so this cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import disk_usage
from uuid import uuid4

from fsd_inference.store.base import Readable


class KeptFiles:
    """An LRU cache of objects and of ranges of objects, as files in a directory that threads and processes share.

    Parameters
    ----------
    directory : Path
        The directory; created when the first object is cached.
    most_bytes : int
        Maximum size of all cached files together, in bytes. Of a larger object only the front is cached: all of it
        would push itself out from one reading to the next.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    @classmethod
    def half_of_disk(cls, directory: Path) -> KeptFiles:
        """Return the cache in a directory that fills at most half of the disk space free of other files.

        What is cached already counts as free, so that a process that starts later has the same limit as the first.
        """
        cached = sum(stat.st_size for stat, _ in _files(directory))
        return cls(directory, (disk_usage(directory.parent).free + cached) // 2)

    def cached(self, objects: Readable) -> CachedObjects:
        """Return a cached version of `objects`, for keys whose objects never change."""
        return CachedObjects(self, objects)

    def read(self, name: str, end: int | None, get: Callable[[], bytes | None]) -> bytes | None:
        """Return what is cached under a name, or else what `get` returns, which is then cached.

        Parameters
        ----------
        name : str
        end : int, optional
            Where the content ends in its object; None if it is the whole object.
        get : callable
        """
        path = self._directory / hashlib.sha256(name.encode()).hexdigest()
        with suppress(OSError):
            data = path.read_bytes()
            with suppress(FileNotFoundError):  # another process may have removed it since, to make room
                os.utime(path)
            return data
        found = get()
        if found is not None and (len(found) if end is None else end) <= self._most_bytes:
            with suppress(OSError):  # a full disk should make the next run slower, not this one fail
                self._directory.mkdir(parents=True, exist_ok=True)
                with _locked(self._directory):
                    self._keep(path, found)
        return found

    def _keep(self, path: Path, data: bytes) -> None:
        if path.exists():  # another process was faster
            return
        kept = _files(self._directory)
        total = sum(stat.st_size for stat, _ in kept) + len(data)
        for stat, file in sorted(kept, key=lambda entry: entry[0].st_mtime_ns):
            if total <= self._most_bytes:
                break
            file.unlink(missing_ok=True)
            total -= stat.st_size
        temporary = self._directory / f".{uuid4().hex}"
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class CachedObjects:
    """Objects behind a cache; the interface is that of `Readable`."""

    def __init__(self, files: KeptFiles, objects: Readable) -> None:
        self._files, self._objects = files, objects

    def get(self, key: str) -> bytes | None:
        """Return the content of the whole object, or None if it does not exist."""
        return self._files.read(key, None, lambda: self._objects.get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Return up to `length` bytes from offset `start`, or None if the object does not exist."""
        # A key contains no colon, so no object has the name of a range.
        name = f"{key}:{start}:{length}"
        return self._files.read(name, start + length, lambda: self._objects.get_range(key, start, length))


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold a directory's file lock, which excludes other threads as well as other processes."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _files(directory: Path) -> list[tuple[os.stat_result, Path]]:
    """Return the files of a directory with their status, without those that are removed meanwhile."""
    found = []
    with suppress(FileNotFoundError):
        for file in directory.iterdir():
            with suppress(FileNotFoundError):
                found.append((file.stat(), file))
    return found
