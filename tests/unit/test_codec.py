"""The block codec from Python: lossless, compact, and rejecting corrupt bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.kernels import decode_block, encode_block

REPOSITORY = Path(__file__).parents[2]


def block_of(matrix: sparse.csr_array) -> bytes:
    return encode_block(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, int(matrix.shape[1])
    )


def matrix_of(block: bytes) -> sparse.csr_array:
    rows, samples, indptr, indices, data = decode_block(block)
    return sparse.csr_array((data, indices, indptr), shape=(rows, samples))


def bits(matrix: sparse.csr_array) -> NDArray[np.uint32]:
    """Return the bit pattern of every stored value, 0 elsewhere."""
    dense = np.zeros(matrix.shape, np.uint32)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    dense[rows, matrix.indices] = matrix.data.view(np.uint32)
    return dense


def floats(rng: np.random.Generator, kind: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return values of one of the kinds that the codec tells apart."""
    if kind == "one":
        return np.full(shape, 32, np.float32)
    if kind == "few":
        return rng.integers(1, 20, shape).astype(np.float32) / np.float32(16)
    if kind == "any":
        pattern = rng.integers(0, 1 << 32, shape, np.uint32)
        pattern[(pattern >> 23) & 0xFF == 0xFF] = 1 << 31
        return pattern.view(np.float32)
    return rng.standard_normal(shape, np.float32)


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(0, 20),
    samples=st.integers(1, 90),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    kind=st.sampled_from(["one", "few", "any", "normal"]),
    repeat=st.booleans(),
)
def test_blocks_come_back_bit_for_bit(
    seed: int, rows: int, samples: int, density: float, kind: str, repeat: bool
) -> None:
    rng = np.random.default_rng(seed)
    kept = rng.random((rows, samples)) < density
    values = floats(rng, kind, (rows, samples))
    if repeat and rows:
        same = rng.integers(0, rows, rows)
        kept, values = kept[same], values[same]
    matrix = sparse.csr_array(
        (values[kept], np.nonzero(kept)[1], np.append(0, np.cumsum(kept.sum(axis=1)))), kept.shape
    )
    found = matrix_of(block_of(matrix))
    assert found.shape == matrix.shape
    assert np.array_equal(bits(found), bits(matrix))


@given(seed=st.integers(0, 2**32), changes=st.integers(0, 4), cut=st.integers(0, 200))
def test_damaged_blocks_are_refused_or_read_as_some_block(seed: int, changes: int, cut: int) -> None:
    """A block has no checksum of its own (frames have): damage may give other values, never more than an error."""
    rng = np.random.default_rng(seed)
    body = bytearray(block_of(sparse.random_array((6, 40), density=0.3, rng=rng, dtype=np.float32).tocsr()))
    for at in rng.integers(0, len(body), changes):
        body[at] = rng.integers(0, 256)
    try:
        rows, samples, indptr, indices, data = decode_block(bytes(body[: len(body) - cut]))
    except ValueError:
        return
    assert len(indptr) == rows + 1
    assert indptr[-1] == len(indices) == len(data)
    assert len(indices) == 0 or (indices.min() >= 0 and indices.max() < samples)


@pytest.mark.parametrize(
    "body", [b"", b"\x00", b"\x07\x01\x01\x00", b"\x01\xff\xff\xff\x07\xff\xff\xff\xff\x0f\xff\xff\xff\x7f"]
)
def test_bytes_that_are_no_block_are_value_errors(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a valid block"):
        decode_block(body)


def test_a_bad_matrix_is_a_value_error() -> None:
    indptr, data = np.array([0, 2]), np.ones(2, np.float32)
    for indices in ([1, 0], [0, 0], [0, 5], [-1, 0]):
        with pytest.raises(ValueError, match="column ind"):
            encode_block(indptr, np.array(indices, np.int32), data, 5)
    with pytest.raises(ValueError, match="values"):
        encode_block(indptr, np.array([0, 1], np.int32), data[:1], 5)
    with pytest.raises(ValueError, match="indptr"):
        encode_block(np.array([0, 3]), np.array([0, 1], np.int32), data, 5)


def test_activations_that_stay_alive_are_packed_near_their_entropy() -> None:
    """Distinct normal values have about 25.5 bits left once the sign of a relu's output is known."""
    rng = np.random.default_rng(1)
    dense = np.maximum(rng.standard_normal((64, 2000), np.float32), 0)
    raw = 4 * np.count_nonzero(dense) + dense.size // 8
    assert len(block_of(sparse.csr_array(dense))) < 0.9 * raw


def test_equal_rows_dead_samples_and_one_value_cost_next_to_nothing() -> None:
    dense = np.zeros((128, 10_000), np.float32)
    dense[:, ::29] = 32
    assert len(block_of(sparse.csr_array(dense))) < 500
    assert len(block_of(sparse.csr_array(np.zeros((128, 10_000), np.float32)))) < 10


def varint(number: int) -> bytes:
    """Return a number in LEB128: seven bits a byte, low ones first."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def zeros_packed(length: int) -> bytes:
    """Return a piece of zeros as Zstandard packs them best: 4 bytes for each 128 KiB (RFC 8878, RLE blocks)."""
    count = length >> 17
    assert length == count << 17
    blocks = b"".join(((1 << 20) | 0b10 | (index == count - 1)).to_bytes(3, "little") + b"\0" for index in range(count))
    packed = b"\x28\xb5\x2f\xfd\xa0" + length.to_bytes(4, "little") + blocks
    return varint(2 * length + 1) + varint(len(packed)) + packed


LARGE = {
    "rows without values": varint(1 << 24) + b"\x01" + varint(2 * 2) + b"\x02\x00",
    "live samples": b"\x01" + varint(1 << 25) + varint(2 * (1 + (1 << 22))) + bytes(1 + (1 << 22)),
    "a packed piece": varint(1000) + varint(200_000) + zeros_packed(200 << 20),
}


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
@pytest.mark.parametrize("block", LARGE.values(), ids=LARGE.keys())
def test_a_block_that_takes_more_memory_than_there_is_is_a_memory_error(block: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.bounded_decoding"],
        cwd=REPOSITORY,
        input=block,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert done.stdout == b"MemoryError"
