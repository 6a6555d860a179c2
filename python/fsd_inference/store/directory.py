"""An object store in a local directory, shared by the processes of one machine."""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar
from uuid import uuid4

from fsd_inference.errors import AccessDeniedError, StoreError, reason
from fsd_inference.store.base import ObjectInfo, Store, StoredObject
from fsd_inference.store.keys import check_key, check_prefix, check_range
from fsd_inference.usage import UsageMeter

T = TypeVar("T")

# '~' is not allowed in keys, so the name of this folder collides with no object.
_PRIVATE = "~store"
_LOCKS = 64


class DirectoryStore(Store):
    """An object store with one file per object below `root`. It sends no requests, so `meter` counts misses only.

    A write goes to a temporary file that is then renamed (put) or hard-linked (put if absent) into place, so readers
    see the whole old or the whole new object. Each version is a new file; its tag combines inode, modification time and
    size. Replacing and deleting take the key's file lock, which makes put-if-match an atomic compare-and-swap.

    Parameters
    ----------
    root : path
        The directory; created if it does not exist.
    meter : UsageMeter, optional
        Counts misses.
    """

    def __init__(self, root: str | Path, *, meter: UsageMeter | None = None) -> None:
        self.meter = meter or UsageMeter()
        self._root = Path(root).absolute()
        self._private = self._root / _PRIVATE
        with self._failures("open", str(self._root)):
            self._private.mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> bytes | None:
        return self._read(key, lambda file: file.read())

    def get_object(self, key: str) -> StoredObject | None:
        return self._read(key, lambda file: StoredObject(file.read(), _etag(os.fstat(file.fileno()))))

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        pieces = self.get_ranges(key, [(start, length)])
        return None if pieces is None else pieces[0]

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes] | None:
        for start, length in ranges:
            check_range(key, start, length)

        def pieces(file: BinaryIO) -> list[bytes]:
            found = []
            for start, length in ranges:
                file.seek(start)
                found.append(file.read(length))
            return found

        return self._read(key, pieces)

    def put(self, key: str, data: bytes) -> str:
        with self._failures("write", key), self._new_file(key, data) as (new, etag), self._locked(key):
            new.replace(self._path(key))
            return etag

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        path = self._path(key)
        with self._failures("write", key), self._new_file(key, data) as (new, etag):
            try:
                os.link(new, path)
            except FileExistsError:
                if path.is_dir():
                    raise
                return None
            return etag

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        with self._failures("write", key), self._new_file(key, data) as (new, new_etag), self._locked(key):
            try:
                current = _etag(self._path(key).stat())
            except FileNotFoundError:
                return None
            if current != etag:
                return None
            new.replace(self._path(key))
            return new_etag

    def stat(self, key: str) -> ObjectInfo | None:
        return self._read(key, lambda file: _info(key, os.fstat(file.fileno())))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        found = []
        for folder, subfolders, names in os.walk(self._root / prefix):
            with suppress(ValueError):
                subfolders.remove(_PRIVATE)
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append(_info(path.relative_to(self._root).as_posix(), path.stat()))
        return iter(sorted(found, key=lambda info: info.key))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            with self._failures("delete", key), self._locked(key), suppress(FileNotFoundError, NotADirectoryError):
                self._path(key).unlink()

    def close(self) -> None:
        pass

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _read(self, key: str, read: Callable[[BinaryIO], T]) -> T | None:
        path = self._path(key)
        with self._failures("read", key):
            try:
                with path.open("rb") as file:
                    return read(file)
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self.meter.miss()
                return None

    @contextmanager
    def _new_file(self, key: str, data: bytes) -> Iterator[tuple[Path, str]]:
        """Write `data` to a temporary file and yield its path and tag; remove the file unless it was renamed."""
        path = self._path(key)
        new = self._private / uuid4().hex
        try:
            new.write_bytes(data)
            # File systems take modification times from a coarse clock; the exact time makes tags of versions differ.
            now = time.time_ns()
            os.utime(new, ns=(now, now))
            etag = _etag(new.stat())
            path.parent.mkdir(parents=True, exist_ok=True)
            yield new, etag
        finally:
            new.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        lock = self._private / f"lock-{zlib.crc32(self._path(key).as_posix().encode()) % _LOCKS}"
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            yield

    @contextmanager
    def _failures(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise AccessDeniedError(f"cannot {operation} {key} in {self._root}: {error.strerror}") from error
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            message = f"cannot {operation} {key} in {self._root}: a part of the key names both an object and a folder"
            raise StoreError(message, retryable=False) from error
        except OSError as error:
            raise StoreError(f"cannot {operation} {key} in {self._root}: {reason(error)}") from error


def _etag(stat: os.stat_result) -> str:
    return f"{stat.st_ino:x}-{stat.st_mtime_ns:x}-{stat.st_size:x}"


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, stat.st_size, _etag(stat), datetime.fromtimestamp(stat.st_mtime, UTC))
