"""The input object: the batch in blocks of features, so that a rank reads only the blocks that it needs.

Layout: ``b"FSDI"``, version (u32), header length (u32), all little-endian; then the header, a JSON object with
``features``, ``block`` (features per block), ``samples`` (of each micro-batch), ``offsets`` (per micro-batch, in bytes
from the end of the header, where each block starts and the last one ends) and ``crc32`` (per micro-batch, of each
block); then the blocks, each written by `SerialState.blocks`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.ma  # np.unique would import it when it is first called, which is in every rank
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import load_json
from fsd_inference.kernels import SerialState, block_shape
from fsd_inference.store.base import Store

_MAGIC = b"FSDI"
_VERSION = 1
_PREFIX = struct.Struct("<4sII")
_FIRST_READ = 256 * 1024
"""Bytes that the first request reads: the header and, for most batches, some or all of the blocks."""
_BLOCK_BYTES = 32 * 1024
"""Maximum bytes of a block's bitmap: small enough to skip unneeded blocks, large enough to justify a range request."""


def encode_input(batch: SerialState, micro_batches: tuple[int, ...], first_sample: int = 0) -> bytes:
    """Return the input object of consecutive samples of a batch.

    Parameters
    ----------
    batch : SerialState
        The batch, to which no layer was applied.
    micro_batches : tuple of int
        Samples of each micro-batch, in order.
    first_sample : int
        The first of these samples.
    """
    features = batch.neurons
    block = max(1, min(features, _BLOCK_BYTES * 8 // max(micro_batches)))
    bodies: list[bytes] = []
    offsets: list[list[int]] = []
    sums: list[list[int]] = []
    position, first = 0, first_sample
    for size in micro_batches:
        starts = [position]
        sums.append([])
        for body in batch.blocks(first, first + size, block):
            bodies.append(body)
            sums[-1].append(zlib.crc32(body))
            position += len(body)
            starts.append(position)
        offsets.append(starts)
        first += size
    header = json.dumps(
        {"features": features, "block": block, "samples": list(micro_batches), "offsets": offsets, "crc32": sums}
    ).encode()
    return b"".join([_PREFIX.pack(_MAGIC, _VERSION, len(header)), header, *bodies])


@dataclass(frozen=True, slots=True)
class InputBlock:
    """An encoded block of one micro-batch: consecutive features, starting at `first_feature`."""

    micro_batch: int
    first_feature: int
    payload: bytes


def read_input(
    store: Store, key: str, needed: NDArray[np.uint32], expected_samples: tuple[int, ...], expected_features: int
) -> Iterator[InputBlock]:
    """Fetch and yield the blocks that hold a needed feature.

    Parameters
    ----------
    store, key
        Store and key of the input object.
    needed : ndarray of uint32
        Features that the rank's rows of layer 0 are connected to.
    expected_samples, expected_features
        Samples of each micro-batch and features, as in the run specification.

    Raises
    ------
    FileFormatError
        The input object is missing, damaged, or of another batch.
    """
    first = store.get_range(key, 0, _FIRST_READ)
    if first is None:
        raise FileFormatError(f"the input object {key} is not in the store; upload the batch again")
    if len(first) < _PREFIX.size or first[:4] != _MAGIC:
        raise FileFormatError(f"{key} is not an input object; upload the batch again")
    _, version, header_length = _PREFIX.unpack_from(first)
    if version != _VERSION:
        raise FileFormatError(
            f"the input object {key} is of version {version}, not {_VERSION}; use one release throughout"
        )
    start = _PREFIX.size + header_length
    if start > len(first):
        rest = store.get_range(key, len(first), start - len(first))
        first += rest or b""
    header = _parse_header(key, first[_PREFIX.size : start], expected_samples, expected_features)
    blocks = [int(b) for b in np.unique(needed // header.block)]
    wanted = [
        _Wanted(
            micro_batch,
            b * header.block,
            (min(header.block, expected_features - b * header.block), samples),
            start + offsets[b],
            offsets[b + 1] - offsets[b],
            sums[b],
        )
        for micro_batch, (offsets, sums, samples) in enumerate(
            zip(header.offsets, header.sums, expected_samples, strict=True)
        )
        for b in blocks
    ]
    yield from _fetch(store, key, first, wanted)


class _Wanted(NamedTuple):
    """The position and the checksum of a block to read, and the features and samples that it must have."""

    micro_batch: int
    feature: int
    shape: tuple[int, int]
    begin: int
    length: int
    crc32: int


def _fetch(store: Store, key: str, first: bytes, wanted: list[_Wanted]) -> Iterator[InputBlock]:
    beyond = [(block.begin, block.length) for block in wanted if block.begin + block.length > len(first)]
    fetched = iter(store.get_ranges(key, beyond) or [] if beyond else [])
    for micro_batch, feature, shape, begin, length, crc32 in wanted:
        inside = begin + length <= len(first)
        payload = first[begin : begin + length] if inside else next(fetched, b"")
        if len(payload) != length:
            raise FileFormatError(f"the input object {key} is truncated; upload the batch again")
        if zlib.crc32(payload) != crc32:
            raise FileFormatError(f"the input object {key} is damaged; upload the batch again", retryable=True)
        if _shape(payload) != shape:  # a few bytes can claim to decode to gigabytes
            raise FileFormatError(f"the input object {key} has a block of another shape; upload the batch again")
        yield InputBlock(micro_batch, feature, payload)


def _shape(payload: bytes) -> tuple[int, int] | None:
    try:
        return block_shape(payload)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Header:
    block: int
    offsets: list[list[int]]
    sums: list[list[int]]


def _parse_header(key: str, text: bytes, samples: tuple[int, ...], features: int) -> _Header:
    try:
        value = load_json(text)
        block, offsets = int(value["block"]), [[int(o) for o in starts] for starts in value["offsets"]]
        sums = [[int(s) for s in of_blocks] for of_blocks in value["crc32"]]
        if value["features"] != features or tuple(value["samples"]) != samples:
            raise FileFormatError(
                f"the input object {key} holds {value['samples']} samples x {value['features']} features, "
                f"but the run is for {list(samples)} x {features}"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"the header of the input object {key} cannot be read: {error}") from error
    blocks = -(-features // block) if block > 0 else -1
    regular = all(len(starts) == blocks + 1 and starts == sorted(starts) and starts[0] >= 0 for starts in offsets)
    regular = regular and [len(of_blocks) for of_blocks in sums] == [blocks] * len(samples)
    if len(offsets) != len(samples) or not regular:
        raise FileFormatError(f"the header of the input object {key} contradicts itself; upload the batch again")
    return _Header(block, offsets, sums)
