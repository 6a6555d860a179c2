"""The layout of an object that holds the frames of one send: an index, then the bodies in the same order.

All numbers are little-endian. The index is a header and one entry for each body. Header: magic ``FSDO``, version u16,
two zero bytes, number of parts u32, bytes of the index u32. Entry: length of the body u64, number of targets u32, the
targets (u32 each).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from fsd_inference.errors import ChannelError
from fsd_inference.limits import OBJECT_ENTRY, OBJECT_HEADER, OBJECT_TARGET

_MAGIC = b"FSDO"
_VERSION = 1
_HEADER = struct.Struct(OBJECT_HEADER)
_ENTRY = struct.Struct(OBJECT_ENTRY)
_MAX_INDEX_BYTES = 64 << 20
HEADER_BYTES = _HEADER.size
"""Size of the header, from which the size of the index can be read, in bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """The position of a body in the object, and the ranks that it is for."""

    targets: tuple[int, ...]
    start: int
    end: int


def pack_parts(parts: Sequence[tuple[Sequence[int], bytes]]) -> bytes:
    """Return the object that holds (targets, body) pairs."""
    entries = [
        _ENTRY.pack(len(body), len(targets)) + struct.pack(f"<{len(targets)}{OBJECT_TARGET}", *targets)
        for targets, body in parts
    ]
    size = _HEADER.size + sum(map(len, entries))
    header = _HEADER.pack(_MAGIC, _VERSION, 0, len(parts), size)
    return b"".join((header, *entries, *(body for _, body in parts)))


def index_size(head: bytes) -> int:
    """Return the size of an object's index in bytes, given the first bytes of the object.

    Raises
    ------
    ChannelError
        The object was not written by this channel.
    """
    if len(head) < _HEADER.size:
        raise _damaged(f"it ends after {len(head)} bytes")
    magic, version, zero, parts, size = _HEADER.unpack_from(head)
    if magic != _MAGIC or version != _VERSION or zero:
        raise _damaged("its magic or version is wrong")
    if not _HEADER.size + parts * _ENTRY.size <= size <= _MAX_INDEX_BYTES:
        raise _damaged(f"its index says {parts} parts in {size} bytes")
    return int(size)


def read_index(index: bytes, frame_bytes: int) -> list[Part]:
    """Return the parts that a complete index (`index_size` bytes) describes.

    Raises
    ------
    ChannelError
        Sizes in the index contradict each other, or a body is empty or exceeds `frame_bytes`.
    """
    size = index_size(index)
    if len(index) != size:
        raise _damaged(f"its index has {len(index)} bytes instead of {size}")
    count: int = _HEADER.unpack_from(index)[3]
    parts = []
    at, start = _HEADER.size, size
    for number in range(count):
        if at + _ENTRY.size > size:
            raise _damaged(f"its index ends before part {number}")
        length, targets = _ENTRY.unpack_from(index, at)
        at += _ENTRY.size
        if not 0 < length <= frame_bytes or targets * 4 > size - at:
            raise _damaged(f"its part {number} says {length} bytes for {targets} ranks")
        parts.append(Part(struct.unpack_from(f"<{targets}{OBJECT_TARGET}", index, at), start, start + length))
        at += targets * 4
        start += length
    if at != size:
        raise _damaged(f"its index has {size - at} bytes too many")
    return parts


def _damaged(why: str) -> ChannelError:
    return ChannelError(f"the object is not one that a channel wrote: {why}", retryable=False)
