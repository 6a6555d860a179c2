"""The result object, which holds a rank's output rows, and its conversion back into triplets.

Layout: ``b"FSDR"``, version (u32), number of micro-batches (u32), CRC-32 of all bytes that follow (u32), the length of
each block (u64), all little-endian; then the blocks (local rows x samples of the micro-batch), each written by
`kernels.encode_block`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.gather import Summary
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import decode_block

_PREFIX = struct.Struct("<4sIII")
_MAGIC = b"FSDR"
_VERSION = 1

Triplets = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Samples, neurons and values of stored activations."""


def pack_blocks(blocks: Sequence[bytes]) -> bytes:
    """Return the result object of a rank, built from its blocks, one per micro-batch."""
    lengths = struct.pack(f"<{len(blocks)}Q", *map(len, blocks))
    body = b"".join([lengths, *blocks])
    return _PREFIX.pack(_MAGIC, _VERSION, len(blocks), zlib.crc32(body)) + body


def unpack_blocks(data: bytes, micro_batches: int) -> list[memoryview]:
    """Return the blocks of a result object; raise `FileFormatError` if it is damaged or something else."""
    start = _PREFIX.size + 8 * micro_batches
    if len(data) < start or _PREFIX.unpack_from(data)[:3] != (_MAGIC, _VERSION, micro_batches):
        raise FileFormatError(f"this is not a result object of version {_VERSION} with {micro_batches} micro-batches")
    blocks, view = [], memoryview(data)
    if zlib.crc32(view[_PREFIX.size :]) != _PREFIX.unpack_from(data)[3]:
        raise FileFormatError("the result object is damaged")
    for length in struct.unpack_from(f"<{micro_batches}Q", data, _PREFIX.size):
        blocks.append(view[start : start + length])
        start += length
    if start != len(data):
        raise FileFormatError(f"the result object has {len(data)} bytes instead of {start}")
    return blocks


def output_triplets(data: bytes, sizes: Sequence[int], rows: NDArray[np.integer]) -> Triplets:
    """Return the non-zero outputs of one rank.

    Parameters
    ----------
    data : bytes
        The result object.
    sizes : sequence of int
        Samples of each micro-batch.
    rows : ndarray
        Global neuron of each local row, ascending.
    """
    samples: list[NDArray[np.int64]] = []
    neurons: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    first = 0
    for block, size in zip(unpack_blocks(data, len(sizes)), sizes, strict=True):
        try:
            n_rows, n_samples, indptr, indices, found = decode_block(bytes(block))
        except ValueError as error:
            raise FileFormatError(f"a result block cannot be read: {error}") from error
        if (n_rows, n_samples) != (len(rows), size):
            raise FileFormatError(f"a result block is {n_rows} x {n_samples} instead of {len(rows)} x {size}")
        samples.append(indices.astype(np.int64) + first)
        neurons.append(np.repeat(rows.astype(np.int64), np.diff(indptr)))
        values.append(found)
        first += size
    return np.concatenate(samples), np.concatenate(neurons), np.concatenate(values)


def concatenate(parts: Sequence[Summary]) -> Summary:
    """Join the summaries of consecutive micro-batches."""
    return np.concatenate([values for values, _ in parts]), np.concatenate([neurons for _, neurons in parts])
