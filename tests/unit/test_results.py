"""Input and result objects: whole batches as blocks of neurons x samples, compared with the arrays they came from."""

from __future__ import annotations

import itertools
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.engine.inputs import encode_input, read_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.results import joined_outputs, pack_blocks
from fsd_inference.engine.serial import serial_state, state_rows
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import SerialState, decode_block, encode_block
from fsd_inference.store.memory import MemoryStore


def batch(seed: int, samples: int, width: int, density: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((samples, width), np.float32) * (rng.random((samples, width)) < density)
    x[rng.random(samples) < 0.2] = 0
    return np.where(x == 0, np.float32(0), x)


def block_of(rows: NDArray[np.float32]) -> bytes:
    matrix = sparse.csr_array(rows)
    return encode_block(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, rows.shape[1])


def results_of(
    y: NDArray[np.float32], owners: NDArray[np.intp], ranks: int, sizes: tuple[int, ...]
) -> list[tuple[bytes, NDArray[np.intp]]]:
    """Return the result object of each rank, and its neurons."""
    ends = np.cumsum(sizes)
    rows = [np.flatnonzero(owners == rank) for rank in range(ranks)]
    return [
        (pack_blocks([block_of(y[end - size : end, own].T) for end, size in zip(ends, sizes, strict=True)]), own)
        for own in rows
    ]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    samples=st.integers(1, 200),
    neurons=st.integers(1, 80),
    ranks=st.integers(1, 5),
    micro_batches=st.integers(1, 4),
    density=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    threads=st.integers(1, 2),
)
def test_the_results_of_ranks_make_the_outputs_of_the_batch(
    seed: int, samples: int, neurons: int, ranks: int, micro_batches: int, density: float, threads: int
) -> None:
    y = batch(seed, samples, neurons, density)
    owners = np.random.default_rng(seed).integers(0, ranks, neurons)
    sizes = micro_batch_sizes(samples, micro_batches)
    state = joined_outputs(results_of(y, owners, ranks, sizes), sizes, neurons, threads)
    dense, rows = state_rows(state, "dense"), state_rows(state, "csr")
    assert isinstance(dense, np.ndarray)
    assert dense.tobytes() == y.tobytes()
    assert isinstance(rows, sparse.csr_array)
    assert rows.nnz == np.count_nonzero(y)
    assert rows.toarray().tobytes() == y.tobytes()


def test_results_that_are_damaged_or_of_other_outputs_are_refused() -> None:
    y, owners, sizes = batch(1, 30, 12, 0.5), np.arange(12) % 2, (20, 10)
    good = results_of(y, owners, 2, sizes)
    damaged = bytearray(good[0][0])
    damaged[-1] ^= 1
    for wrong, message in [
        ((bytes(damaged), good[0][1]), "the result object is damaged"),
        ((good[0][0][:20], good[0][1]), "not a result object of version 1 with 2 micro-batches"),
        ((good[0][0], good[0][1][1:]), "a block is 6 x 20 instead of 5 x 20"),
        ((pack_blocks([b"\x06\x14\x03"] * 2), good[0][1]), "not a valid block"),
        ((pack_blocks([b"\x01\x02\x03"] * 2), good[0][1]), "a block is 1 x 2 instead of 6 x 20"),  # before it is read
    ]:
        with pytest.raises(FileFormatError, match=message):
            joined_outputs([wrong, good[1]], sizes, 12)
    data, rows = good[0]
    lengths = struct.pack("<2Q", 1, 1)
    longer = data[:12] + struct.pack("<I", zlib.crc32(lengths + data[32:])) + lengths + data[32:]
    with pytest.raises(FileFormatError, match="bytes instead of"):
        joined_outputs([(longer, rows)], sizes, 12)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    samples=st.integers(1, 150),
    features=st.integers(1, 60),
    first=st.integers(0, 20),
    micro_batches=st.integers(1, 3),
    density=st.sampled_from([0.0, 0.1, 1.0]),
    order=st.sampled_from(["C", "F", "csr"]),
    count=st.integers(1, 70),
)
def test_inputs_are_blocks_of_features_that_ranks_read(
    seed: int, samples: int, features: int, first: int, micro_batches: int, density: float, order: str, count: int
) -> None:
    x = batch(seed, first + samples, features, density)
    state = serial_state(sparse.csr_array(x) if order == "csr" else np.array(x, order=order))  # type: ignore[call-overload]
    sizes = micro_batch_sizes(samples, micro_batches)
    store = MemoryStore()
    store.put("input", encode_input(state, sizes, first))
    needed = np.arange(features, dtype=np.uint32)
    ends = first + np.cumsum(sizes)
    found = np.full((samples, features), np.nan, np.float32)
    for block in read_input(store, "input", needed, sizes, features):
        rows, columns, indptr, indices, data = decode_block(block.payload)
        of_batch = slice(ends[block.micro_batch] - columns - first, ends[block.micro_batch] - first)
        part: sparse.csr_array = sparse.csr_array((data, indices, indptr), shape=(rows, columns))
        found[of_batch, block.first_feature : block.first_feature + rows] = part.toarray().T
    assert found.tobytes() == x[first:].tobytes()
    # Blocks are those that `encode_block` makes of the same rows.
    blocks = state.blocks(first, first + samples, count)
    assert blocks == [block_of(x[first:, start : start + count].T) for start in range(0, features, count)]


@pytest.mark.parametrize("shape", [(7, 20), (1000, 20), (6, 19), None])
def test_a_block_of_the_input_of_another_shape_is_refused(shape: tuple[int, int] | None) -> None:
    """Its checksum is right: whoever may write the object can claim any shape."""
    block = b"\x80" if shape is None else block_of(np.zeros(shape, np.float32))
    header = {"features": 6, "block": 6, "samples": [20], "offsets": [[0, len(block)]], "crc32": [[zlib.crc32(block)]]}
    text = json.dumps(header).encode()
    store = MemoryStore()
    store.put("input", struct.pack("<4sII", b"FSDI", 1, len(text)) + text + block)
    with pytest.raises(FileFormatError, match="has a block of another shape"):
        list(read_input(store, "input", np.arange(6, dtype=np.uint32), (20,), 6))


def test_blocks_of_samples_that_are_not_there_are_refused() -> None:
    state = serial_state(batch(2, 6, 5, 1.0))
    for first, end, count in itertools.product((0, 4), (3, 7), (0, 2)):
        if (first, end, count) != (0, 3, 2):
            with pytest.raises(ValueError, match="cannot be cut"):
                state.blocks(first, end, count)
    with pytest.raises(ValueError, match="are not, in ascending order"):
        SerialState.from_blocks(3, 2, [(b"", 0, 4, np.arange(2, dtype=np.uint32))], 1)


def test_a_dense_batch_with_a_value_that_is_not_finite_starts_no_ranks() -> None:
    x = batch(3, 20, 8, 0.5)
    x[7, 3] = np.nan
    network = fsd.random_network([8, 4], connections=2)
    with (
        fsd.Session(network, channel="local", workers=2) as session,
        pytest.raises(fsd.InputError, match=r"row 7, column 3 \(from 0\) is not a finite float32"),
    ):
        session.infer(x)
    assert session.report is None
