"""The result object, which holds a rank's output rows, and the batch that the results of all ranks make.

Layout: ``b"FSDR"``, version (u32), number of micro-batches (u32), CRC-32 of all bytes that follow (u32), the length of
each block (u64), all little-endian; then the blocks (local rows x samples of the micro-batch), each written by
`kernels.encode_block`.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.gather import Summary
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import SerialState

_PREFIX = struct.Struct("<4sIII")
_MAGIC = b"FSDR"
_VERSION = 1


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


def joined_outputs(
    results: Iterable[tuple[bytes, NDArray[np.integer]]], sizes: Sequence[int], neurons: int, threads: int = 1
) -> SerialState:
    """Return the outputs of a batch of `neurons` neurons.

    Parameters
    ----------
    results : iterable of (bytes, ndarray)
        For each rank its result object, and the global neuron of each of its local rows, ascending.
    sizes : sequence of int
        Samples of each micro-batch.
    neurons : int
        Outputs of a sample.
    threads : int
        Number of kernel threads.

    Raises
    ------
    FileFormatError
        A result object is damaged, or of other outputs.
    """
    ends = list(itertools.accumulate(sizes))
    parts = [
        (block, end - size, end, rows.astype(np.uint32))
        for data, rows in results
        for block, size, end in zip(unpack_blocks(data, len(sizes)), sizes, ends, strict=True)
    ]
    try:
        return SerialState.from_blocks(sum(sizes), neurons, parts, threads)
    except ValueError as error:
        raise FileFormatError(f"a result block cannot be read: {error}") from error


def concatenate(parts: Sequence[Summary]) -> Summary:
    """Join the summaries of consecutive micro-batches."""
    return np.concatenate([values for values, _ in parts]), np.concatenate([neurons for _, neurons in parts])
