"""Damage of valid files: bytes that are flipped, cut or repeated, and numbers that are replaced by hostile ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

_BINARY = (0, 1, 2**7, 2**15 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
_TEXT = (b"", b"-1", b"0", b"1e400", b"nan", b"inf", b"2147483648", b"9" * 25, b"1.5", b"0x1", b"1_0", b"null", b"[]")
Draw = Callable[[st.SearchStrategy[Any]], Any]
_NUMBER = re.compile(rb"\d+")


def _replaced(draw: Draw, data: bytes, at: int) -> bytes:
    """Replace a number that is stored in 1 to 8 bytes."""
    size: int = draw(st.sampled_from((1, 2, 4, 8)))
    value: int = draw(st.sampled_from(_BINARY)) % 256**size
    return data[:at] + value.to_bytes(size, "little") + data[at + size :]


def _rewritten(draw: Draw, data: bytes, at: int) -> bytes:
    """Replace the number in text that follows a position."""
    found = _NUMBER.search(data, at)
    if found is None:
        return data
    text: bytes = draw(st.sampled_from(_TEXT))
    return data[: found.start()] + text + data[found.end() :]


def _flipped(draw: Draw, data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]


def _cut(draw: Draw, data: bytes, at: int) -> bytes:
    return data[:at]


def _joined(draw: Draw, data: bytes, at: int) -> bytes:
    """Leave a part out, or have it twice."""
    return data[:at] + data[draw(st.integers(0, len(data) - 1)) :]


_KINDS = (_replaced, _rewritten, _flipped, _cut, _joined)


@st.composite
def damaged(draw: Draw, valid: bytes) -> bytes:
    """Draw a file that was damaged in one to three places."""
    data = valid
    for _ in range(draw(st.integers(1, 3))):
        if data:
            data = draw(st.sampled_from(_KINDS))(draw, data, draw(st.integers(0, len(data) - 1)))
    return data
