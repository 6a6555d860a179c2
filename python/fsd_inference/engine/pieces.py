"""Reading of a large object from its start to its end, by ranges of which several are fetched at the same time."""

from __future__ import annotations

import math
import mmap
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from fsd_inference.errors import AbortedError, FileFormatError
from fsd_inference.threads import ThreadPool

PIECE_BYTES = 1 << 20
"""Bytes of a range: few requests, yet little memory for the ranges that are fetched at the same time."""
PARALLEL_PIECES = 8
"""Ranges fetched at the same time; one connection to S3 does not use the bandwidth of a function."""

_OWN_PAGES = 64 << 10

Buffer = bytearray | mmap.mmap

GetRange = Callable[[str, int, int], bytes | None]
"""Returns the bytes of an object from an offset, or None if there is no such object; see `Store.get_range`."""


def requests(size: int) -> int:
    """Return how many ranges an object of `size` bytes is read in."""
    return max(1, math.ceil(size / PIECE_BYTES))


class Pieces:
    """An object that is read front to back, and fetched ahead of the reader.

    Parameters
    ----------
    get_range : callable
    key : str
        The object.
    size : int
        Its size in bytes.
    stopped : Future
        Ends waiting reads once it is done.
    """

    def __init__(self, get_range: GetRange, key: str, size: int, stopped: Future[None]) -> None:
        self._get_range, self._key, self._size, self._stopped = get_range, key, size, stopped
        self._next = self._taken = 0  # where the next range starts, and where the pieces taken end
        self._fetching: deque[Future[bytes | None]] = deque()
        self._piece = memoryview(b"")
        self._threads = ThreadPool(min(PARALLEL_PIECES, requests(size)), thread_name_prefix="piece")

    def read(self, count: int) -> Buffer:
        """Return the next `count` bytes, or fewer at the end of the object.

        Many bytes get pages of their own, which the system has back once they are released. From the heap they would
        lie between pieces, whose place no other allocation fits into.

        Raises
        ------
        FileFormatError
            The object does not exist or is smaller than it should be.
        StoreError
            A request failed.
        AbortedError
            `stopped` is done.
        """
        found: Buffer = mmap.mmap(-1, count) if count >= _OWN_PAGES else bytearray(count)
        filled = 0
        while filled < count and (self._piece or self._fetch()):
            part = self._piece[: count - filled]
            found[filled : filled + len(part)] = part
            filled += len(part)
            self._piece = self._piece[len(part) :]
        return found if filled == count else bytearray(found[:filled])

    def _fetch(self) -> bool:
        """Take the next piece; return whether there is one."""
        while self._next < self._size and len(self._fetching) < PARALLEL_PIECES:
            length = min(PIECE_BYTES, self._size - self._next)
            self._fetching.append(self._threads.submit(self._get_range, self._key, self._next, length))
            self._next += length
        if not self._fetching:
            return False
        first = self._fetching[0]
        either: list[Future[Any]] = [first, self._stopped]
        wait(either, return_when=FIRST_COMPLETED)
        if self._stopped.done():
            raise AbortedError(f"reading {self._key} was ended", operation="load")
        self._fetching.popleft()
        piece = first.result()
        if piece is None:
            raise FileFormatError(f"{self._key} is not in the store; upload the partitioned network again")
        expected = min(PIECE_BYTES, self._size - self._taken)
        if len(piece) != expected:
            raise FileFormatError(
                f"{self._key} has {self._taken + len(piece)} bytes, not the {self._size} of the manifest; upload the "
                "partitioned network again"
            )
        self._taken += expected
        self._piece = memoryview(piece)
        return True

    def close(self) -> None:
        """Fetch nothing more; does not wait for ranges that are being fetched."""
        self._threads.shutdown(wait=False, cancel_futures=True)
