"""The format of objects that hold frames, valid and corrupt."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.channels.parts import index_size, pack_parts, read_index
from fsd_inference.errors import ChannelError

PARTS = st.lists(
    st.tuples(st.lists(st.integers(0, 2**32 - 1), max_size=5), st.binary(min_size=1, max_size=40)), max_size=8
)


@given(PARTS)
def test_what_is_packed_is_found(parts: list[tuple[list[int], bytes]]) -> None:
    data = pack_parts(parts)
    found = read_index(data[: index_size(data)], 40)
    assert [(list(part.targets), data[part.start : part.end]) for part in found] == parts
    assert (found[-1].end if found else index_size(data)) == len(data)


@given(PARTS, st.data())
def test_damage_is_an_error_or_changes_sizes_within_bounds(
    parts: list[tuple[list[int], bytes]], data: st.DataObject
) -> None:
    whole = bytearray(pack_parts(parts))
    size = index_size(bytes(whole))
    at = data.draw(st.integers(0, size - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read_index(bytes(whole[: index_size(bytes(whole))]), 40)
    except ChannelError:
        return
    assert all(0 < part.end - part.start <= 40 for part in found)
    assert len(found) == len(parts)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"FSDO",
        bytes(16),
        struct.pack("<4sHHII", b"FSDO", 2, 0, 0, 16),
        struct.pack("<4sHHII", b"FSDO", 1, 0, 0, 15),
        struct.pack("<4sHHII", b"FSDO", 1, 0, 1, 16),
        struct.pack("<4sHHII", b"FSDO", 1, 0, 0, 1 << 31),
        struct.pack("<4sHHII", b"FSDO", 1, 0, 1 << 30, 28),
    ],
)
def test_what_is_no_index_is_refused_before_memory_is_taken(head: bytes) -> None:
    with pytest.raises(ChannelError, match="not one that a channel wrote") as caught:
        index_size(head)
    assert not caught.value.retryable


def test_a_truncated_index_is_refused() -> None:
    data = pack_parts([((1, 2, 3), b"abc")])
    for size in range(16, index_size(data)):
        with pytest.raises(ChannelError, match="not one that a channel wrote"):
            read_index(data[:size], 40)
