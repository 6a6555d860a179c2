"""Reader of ONNX files without the values of their initializers: most of a file, and read one by one.

A message of Protocol Buffers is a sequence of fields: a tag (number * 8 + kind) and a value. A message within another
is a field of kind 2: its length and its fields.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_GRAPH = 7  # fields of ModelProto, GraphProto and TensorProto
_INITIALIZER = 5
_RAW_DATA = 9

_SIZES = {1: 8, 5: 4}  # kinds of fields of a fixed size
_VARINT, _LENGTH = 0, 2
_VARINT_BYTES = 10


class Place(NamedTuple):
    """Where the values of an initializer are in the file."""

    offset: int
    length: int


class _Field(NamedTuple):
    """The number of a field, its tag and, unless it has a length, its value; and the length of what follows."""

    number: int
    head: bytes
    length: int | None


def without_values(stream: BinaryIO, size: int) -> tuple[bytes, list[Place | None]]:
    """Return a serialized ModelProto without the raw data of its initializers, and where these are.

    Parameters
    ----------
    stream : binary file
        A file that holds a ModelProto.
    size : int
        Its number of bytes.

    Returns
    -------
    bytes
        The model, without `raw_data` in `graph.initializer`.
    list of Place or None
        For each initializer, in order; None if it has no raw data.

    Raises
    ------
    ValueError
        If the bytes are no such message.
    """
    places: list[Place | None] = []
    kept = io.BytesIO()
    for field in _fields(stream, size):
        if field.number == _GRAPH and field.length is not None:
            _put(kept, _GRAPH, _graph(stream, stream.tell() + field.length, places))
        else:
            _copy(stream, field, kept)
    return kept.getvalue(), places


def _graph(stream: BinaryIO, end: int, places: list[Place | None]) -> bytes:
    kept = io.BytesIO()
    for field in _fields(stream, end):
        if field.number == _INITIALIZER and field.length is not None:
            tensor, place = _tensor(stream, stream.tell() + field.length)
            _put(kept, _INITIALIZER, tensor)
            places.append(place)
        else:
            _copy(stream, field, kept)
    return kept.getvalue()


def _tensor(stream: BinaryIO, end: int) -> tuple[bytes, Place | None]:
    kept, place = io.BytesIO(), None
    for field in _fields(stream, end):
        if field.number == _RAW_DATA and field.length is not None:
            place = Place(stream.tell(), field.length)
            stream.seek(field.length, io.SEEK_CUR)
        else:
            _copy(stream, field, kept)
    return kept.getvalue(), place


def _fields(stream: BinaryIO, end: int) -> Iterator[_Field]:
    """Yield the fields up to a position; the caller moves past those with a length."""
    while stream.tell() < end:
        tag, head = _varint(stream)
        number, kind = tag >> 3, tag & 7
        length = None
        if kind == _LENGTH:
            length, more = _varint(stream)
            head += more
        elif kind == _VARINT:
            head += _varint(stream)[1]
        elif kind in _SIZES:
            head += stream.read(_SIZES[kind])
        else:
            raise ValueError(f"a field is of kind {kind}")
        if stream.tell() + (length or 0) > end:
            raise ValueError("a field does not end with its message")
        yield _Field(number, head, length)


def _copy(stream: BinaryIO, field: _Field, target: io.BytesIO) -> None:
    target.write(field.head)
    target.write(stream.read(field.length or 0))


def _put(target: io.BytesIO, number: int, message: bytes) -> None:
    """Write a message as a field."""
    for value in (number << 3 | _LENGTH, len(message)):
        rest = value
        while rest > 0x7F:
            target.write(bytes([rest & 0x7F | 0x80]))
            rest >>= 7
        target.write(bytes([rest]))
    target.write(message)


def _varint(stream: BinaryIO) -> tuple[int, bytes]:
    """Return a number and the bytes that encode it, 7 bits each, the lowest first."""
    value, read = 0, b""
    for shift in range(0, 7 * _VARINT_BYTES, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("a number is truncated")
        value |= (byte[0] & 0x7F) << shift
        read += byte
        if byte[0] < 0x80:
            return value, read
    raise ValueError("a number is too long")
