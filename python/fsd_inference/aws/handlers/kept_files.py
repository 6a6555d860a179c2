"""A cache of immutable objects on a function's local disk, which outlives single runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4


class KeptFiles:
    """An LRU cache of objects, as files in a directory.

    Parameters
    ----------
    directory : Path
        The directory; created when the first object is cached.
    most_bytes : int
        Maximum size of all cached files together, in bytes; larger objects are not cached.
    """

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    def reader(self, get: Callable[[str], bytes | None]) -> Callable[[str], bytes | None]:
        """Return a cached version of `get`, for keys whose objects never change."""

        def read(key: str) -> bytes | None:
            path = self._directory / hashlib.sha256(key.encode()).hexdigest()
            with suppress(OSError):
                data = path.read_bytes()
                path.touch()
                return data
            found = get(key)
            if found is not None and len(found) <= self._most_bytes:
                with suppress(OSError):  # a full disk should make the next run slower, not this one fail
                    self._keep(path, found)
            return found

        return read

    def _keep(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        kept = [(file.stat(), file) for file in self._directory.iterdir()]
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
