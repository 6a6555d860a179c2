"""One network over P ranks in this process, with frames shuffled, duplicated and corrupted in transit."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.kernels import (
    ActivationName,
    LayerKernel,
    NonFiniteError,
    RankState,
    SerialState,
    Shard,
    ShardLayer,
    decode_block,
    encode_block,
    seal,
)

RUN, PLAN = b"r" * 16, b"p" * 16


T = TypeVar("T", bound=np.generic)
Rows = NDArray[np.intp]
Edge = tuple[tuple[int, ...], Rows]
"""Targets, and global rows."""


def frozen(array: NDArray[Any], dtype: type[T]) -> NDArray[T]:
    """Return a read-only copy, as the kernels borrow arrays."""
    copy = array.astype(dtype)
    copy.setflags(write=False)
    return copy


@dataclass(frozen=True)
class Dense:
    """A layer as plain arrays."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    activation: ActivationName
    clip: float = 0.0

    def kernel(self, rows: Rows, columns: Rows) -> LayerKernel:
        part = sparse.csr_array(self.weights[np.ix_(rows, columns)])
        bias = self.bias if self.bias.size == 1 else self.bias[rows]
        keeps_zeros = bool((self.bias == 0).all() if self.activation == "identity" else (self.bias <= 0).all())
        return LayerKernel(
            frozen(part.indptr, np.int64),
            frozen(part.indices, np.uint16),
            frozen(part.data, np.float32),
            columns.size,
            frozen(bias, np.float32),
            [(rows.size, "sum", self.activation, [self.clip] if self.activation == "clipped_relu" else [])],
            frozen(np.empty(0), np.float32),
            keeps_zeros,
        )


def random_network(rng: np.random.Generator, widths: Sequence[int]) -> list[Dense]:
    """Return layers of which some keep zeros and some do not."""
    layers = []
    names: list[ActivationName] = ["relu", "clipped_relu", "identity"]
    for columns, rows in itertools.pairwise(widths):
        weights = rng.standard_normal((rows, columns), np.float32) * (rng.random((rows, columns)) < 0.4)
        activation = names[rng.integers(3)]
        bias = rng.standard_normal(rows, np.float32) * np.float32(0.3)
        if rng.random() < 0.6:
            bias = -np.abs(bias) if activation != "identity" else bias * np.float32(0)
        layers.append(Dense(weights, bias, activation, 2.0 if activation == "clipped_relu" else 0.0))
    return layers


def edges_between(source_rows: list[Rows], columns: list[Rows]) -> list[list[Edge]]:
    """Return the edges of each rank after a layer: what the same other ranks want goes as one."""
    edges = []
    for source, rows in enumerate(source_rows):
        wanted: dict[tuple[int, ...], list[int]] = {}
        for row in rows.tolist():
            targets = tuple(rank for rank, needs in enumerate(columns) if rank != source and row in needs)
            if targets:
                wanted.setdefault(targets, []).append(row)
        edges.append([(targets, np.array(found)) for targets, found in sorted(wanted.items())])
    return edges


def incoming(rank: int, own: Rows, edges: list[list[Edge]]) -> tuple[list[tuple[int, int, int]], dict[int, list[int]]]:
    """Return what a rank receives before a layer, and the supplier and place of each row it then has."""
    receives: list[tuple[int, int, int]] = []
    places = {row: [0, i] for i, row in enumerate(own.tolist())}
    for source, sent in enumerate(edges):
        for number, (targets, rows) in enumerate(sent):
            if rank in targets:
                receives.append((source, number, rows.size))
                places |= {row: [len(receives), i] for i, row in enumerate(rows.tolist())}
    return receives, places


def split(layers: list[Dense], owners: list[Rows], workers: int) -> list[Shard]:
    """Cut a network by hand."""
    rows = [[np.flatnonzero(owner == rank) for rank in range(workers)] for owner in owners]
    columns = [[np.flatnonzero(layer.weights[own].any(axis=0)) for own in rows[k]] for k, layer in enumerate(layers)]
    edges = [edges_between(rows[k], columns[k + 1]) for k in range(len(layers) - 1)]
    nothing: list[list[Edge]] = [[] for _ in range(workers)]
    features = np.arange(layers[0].weights.shape[1])
    shards = []
    for rank in range(workers):
        parts, edges_in = [], []
        for k, layer in enumerate(layers):
            before, after = [nothing, *edges][k], [*edges, nothing][k]
            receives, places = incoming(rank, features if k == 0 else rows[k - 1][rank], before)
            where = np.array([places[column] for column in columns[k][rank].tolist()], np.uint32).reshape(-1, 2)
            own = rows[k][rank]
            sends = [(targets, np.searchsorted(own, found).astype(np.uint32)) for targets, found in after[rank]]
            source, row = np.ascontiguousarray(where.T)
            kernel = layer.kernel(own, columns[k][rank])
            parts.append(ShardLayer(kernel, own.astype(np.uint32), source, row, receives, sends))
            edges_in.append(receives)
        shards.append(whole_shard(rank, workers, edges_in, parts))
    return shards


def whole_shard(rank: int, workers: int, receives: list[list[tuple[int, int, int]]], layers: list[ShardLayer]) -> Shard:
    shard = Shard(rank, workers, receives)
    for k, layer in enumerate(layers):
        shard.add(k, layer)
    return shard


def block_of(matrix: sparse.csr_array) -> bytes:
    return encode_block(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, matrix.shape[1])


def matrix_of(block: bytes) -> NDArray[np.float32]:
    rows, samples, indptr, indices, data = decode_block(block)
    return sparse.csr_array((data, indices, indptr), shape=(rows, samples)).toarray()


def put_input(state: RankState, x: NDArray[np.float32], sizes: Sequence[int], block: int = 5) -> None:
    starts = np.append(0, np.cumsum(sizes))
    for m in range(len(sizes)):
        for first in range(0, x.shape[1], block):
            rows = x[starts[m] : starts[m + 1], first : first + block].T
            state.put_input(m, first, block_of(sparse.csr_array(rows)))


def serial(
    layers: list[Dense], x: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Return outputs, largest outputs and their neurons as `SerialState` computes them."""
    batch = sparse.csr_array(x)
    indptr, indices, data = (
        frozen(batch.indptr, np.int64),
        frozen(batch.indices, np.int32),
        frozen(batch.data, np.float32),
    )
    state = SerialState(indptr, indices, data, x.shape[1], 1)
    state.apply(
        [layer.kernel(np.arange(layer.weights.shape[0]), np.arange(layer.weights.shape[1])) for layer in layers]
    )
    largest, neuron = state.reduce()
    indptr, indices, data = state.result()
    shape = (x.shape[0], layers[-1].weights.shape[0])
    return sparse.csr_array((data, indices, indptr), shape=shape).toarray(), largest, neuron


def oracle(layers: list[Dense], x: NDArray[np.float32]) -> NDArray[np.float64]:
    y = x.astype(np.float64)
    for layer in layers:
        y = y @ layer.weights.T.astype(np.float64) + layer.bias
        if layer.activation != "identity":
            y = np.clip(y, 0, layer.clip if layer.activation == "clipped_relu" else None)
    return y


def run(states: list[RankState], layers: int, batches: int, rng: np.random.Generator, limit: int) -> None:
    """Step all ranks through all layers; every body comes twice, in any order, beside damaged ones."""
    steps = [(k, m) for k in range(layers) for m in range(batches)]
    for k, m in steps:
        bodies: list[tuple[int, bytes]] = []
        for state in states:
            assert state.ready(k, m)
            state.assemble(k, m)
            whole = rng.random() < 0.3
            state.compute(k, m, "all" if whole else "boundary")
            for targets, body in state.frames(k, m, limit):
                assert len(body) <= limit
                bodies += [(target, body) for target in targets]
            if not whole:
                state.compute(k, m, "interior")
        said: defaultdict[tuple[object, ...], list[bool]] = defaultdict(list)
        for at in rng.permutation(len(bodies)):
            target, body = bodies[at]
            damaged = bytearray(body)
            damaged[rng.integers(len(body))] ^= 1 << int(rng.integers(8))
            assert states[target].accept(bytes(damaged)).status == "corrupt"
            accepted = states[target].accept(body)
            assert (accepted.status, accepted.kind, accepted.layer, accepted.micro_batch) == ("new", 0, k, m)
            said[target, accepted.source, accepted.edge].append(accepted.complete)
            again = states[target].accept(body)
            assert (again.status, again.complete) == ("duplicate", False)
        # Each edge is complete with the last of its parts, whichever that is.
        assert all(parts == [False] * (len(parts) - 1) + [True] for parts in said.values())


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 5),
    depth=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=3),
    density=st.sampled_from([0.0, 0.01, 0.3]),
    limit=st.sampled_from([120, 1 << 20]),
    spill=st.booleans(),
)
def test_ranks_give_the_serial_result_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    workers: int,
    depth: int,
    sizes: list[int],
    density: float,
    limit: int,
    spill: bool,
) -> None:
    rng = np.random.default_rng(seed)
    # Some layers are narrower than there are ranks: those ranks have no rows of them.
    layers = random_network(rng, rng.integers(1, 25, depth + 1).tolist())
    owners: list[Rows] = [rng.integers(0, workers, (layer.weights.shape[0],)) for layer in layers]
    x = rng.standard_normal((sum(sizes), layers[0].weights.shape[1]), np.float32)
    x *= rng.random(x.shape) < density
    folder = tmp_path_factory.mktemp("spill")
    states = [
        RankState(shard, RUN, 1, PLAN, sizes, 1 + rank % 2, str(folder) if spill else None, 100)
        for rank, shard in enumerate(split(layers, owners, workers))
    ]
    for state in states:
        put_input(state, x, sizes)
    run(states, depth, len(sizes), rng, limit)
    assert not list(folder.iterdir())

    found = np.zeros((len(x), layers[-1].weights.shape[0]), np.float32)
    largest, neuron = np.full(len(x), -np.inf, np.float32), np.full(len(x), -1, np.int32)
    starts = np.append(0, np.cumsum(sizes))
    for rank, state in enumerate(states):
        own = np.flatnonzero(owners[-1] == rank)
        for m in range(len(sizes)):
            batch = slice(starts[m], starts[m + 1])
            best, which = state.reduce(m)
            better = (best > largest[batch]) | ((best == largest[batch]) & (which < neuron[batch]))
            largest[batch][better], neuron[batch][better] = best[better], which[better]
            found[batch, own] = matrix_of(state.output(m)).T
        assert state.resident_bytes() == 0
    expected, expected_largest, expected_neuron = serial(layers, x)
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert np.array_equal(largest, expected_largest)
    assert np.array_equal(neuron, expected_neuron)
    np.testing.assert_allclose(found, oracle(layers, x), rtol=1e-3, atol=1e-3)


def two_ranks() -> list[Shard]:
    """Return two ranks of 2 x 2 layers of ones; each row goes to the other rank."""
    layers = [Dense(np.ones((2, 2), np.float32), np.zeros(1, np.float32), "relu") for _ in range(2)]
    return split(layers, [np.array([0, 1]), np.array([0, 1])], 2)


def state_of(shard: Shard, attempt: int = 1, run: bytes = RUN, plan: bytes = PLAN) -> RankState:
    state = RankState(shard, run, attempt, plan, [3], 1)
    put_input(state, np.ones((3, 2), np.float32), [3])
    return state


def first_frame(state: RankState) -> bytes:
    state.assemble(0, 0)
    state.compute(0, 0, "boundary")
    ((targets, body),) = state.frames(0, 0, 1000)
    assert targets == [1]
    return body


def test_frames_for_a_fast_channel_are_not_compressed_in_vain_and_bring_the_same_rows() -> None:
    rng = np.random.default_rng(3)
    eye = np.eye(90, dtype=np.float32)
    layers = [Dense(eye, np.zeros(1, np.float32), "relu") for _ in range(2)]
    shards = split(layers, [np.zeros(90, np.intp), np.ones(90, np.intp)], 2)
    alive = rng.standard_normal((2000, 90), np.float32)
    for x, is_smaller in [(alive, False), (np.round(alive), True)]:
        sizes = []
        for fast in (False, True):
            sender, receiver = (RankState(shard, RUN, 1, PLAN, [2000], 1) for shard in shards)
            for state in (sender, receiver):
                put_input(state, x, [2000])
                state.assemble(0, 0)
                state.compute(0, 0, "all")
            ((_, body),) = sender.frames(0, 0, 1 << 30, fast)
            sizes.append(len(body))
            assert receiver.accept(memoryview(body)).status == "new"
            receiver.assemble(1, 0)
            receiver.compute(1, 0, "all")
            assert np.array_equal(matrix_of(receiver.output(0)).T, np.maximum(x, 0))
        assert (sizes[1] == sizes[0]) == is_smaller
        assert sizes[1] <= 4 * np.count_nonzero(x > 0) + x.size // 8 + 200


def test_a_frame_that_may_change_is_not_taken() -> None:
    sender, receiver = two_ranks()
    state, body = state_of(receiver), first_frame(state_of(sender))
    with pytest.raises(ValueError, match="read-only"):
        state.accept(memoryview(bytearray(body)))
    with pytest.raises(ValueError, match="contiguous"):
        state.accept(memoryview(body)[::2])
    assert state.accept(memoryview(body)).status == "new"


def test_strays_are_told_apart() -> None:
    sender, receiver = two_ranks()
    state = state_of(receiver)
    assert state.accept(first_frame(state_of(sender, attempt=0))).status == "stale"
    assert state.accept(first_frame(state_of(sender, attempt=2))).status == "foreign"
    assert state.accept(first_frame(state_of(sender, run=b"x" * 16))).status == "foreign"
    assert state.accept(first_frame(state_of(sender, plan=b"x" * 16))).status == "foreign"
    body = first_frame(state_of(sender))
    assert state_of(sender).accept(body).status == "foreign"
    unreadable = state.accept(body[:-1])
    assert (unreadable.status, unreadable.kind, unreadable.complete) == ("corrupt", None, False)
    assert not state.ready(1, 0)
    new = state.accept(body)
    assert (new.status, new.source, new.edge, new.complete, new.payload) == ("new", 0, 0, True, None)
    assert state.ready(1, 0)


def test_control_messages_bring_their_payload_once_whatever_the_order_of_their_parts() -> None:
    state = state_of(two_ranks()[1])
    for kind in (1, 2):
        for part, text, whole in ((1, b"end", None), (0, b"begin, ", b"begin, end")):
            body = seal(RUN, 1, PLAN, 0, kind, 5, [1], part, 2, text)
            first, again = state.accept(body), state.accept(body)
            assert (first.status, first.kind, first.layer, first.source) == ("new", kind, 5, 0)
            assert (first.complete, first.payload) == (whole is not None, whole)
            assert (again.status, again.complete, again.payload) == ("duplicate", False, None)
    assert state.accept(seal(RUN, 1, PLAN, 0, 1, 5, [0], 0, 1, b"")).status == "foreign"
    assert state.accept(seal(RUN, 1, PLAN, 9, 2, 5, [0], 0, 1, b"")).status == "new"
    with pytest.raises(ValueError, match="only control frames"):
        seal(RUN, 1, PLAN, 0, 0, 5, [1], 0, 1, b"")
    with pytest.raises(ValueError, match="16"):
        seal(b"short", 1, PLAN, 0, 1, 5, [1], 0, 1, b"")


def test_steps_out_of_order_are_errors() -> None:
    state = state_of(two_ranks()[0])
    for call in (
        lambda: state.compute(0, 0, "all"),
        lambda: state.frames(0, 0, 1000),
        lambda: state.assemble(1, 0),
        lambda: state.output(0),
        lambda: state.reduce(0),
    ):
        with pytest.raises(RuntimeError, match="layer"):
            call()
    state.assemble(0, 0)
    with pytest.raises(RuntimeError, match="not the next step"):
        state.assemble(0, 0)
    state.compute(0, 0, "interior")
    with pytest.raises(RuntimeError, match="not there"):
        state.frames(0, 0, 1000)
    state.compute(0, 0, "boundary")
    with pytest.raises(RuntimeError, match="not assembled"):
        state.compute(0, 0, "boundary")
    with pytest.raises(RuntimeError, match="still missing"):
        state.assemble(1, 0)
    with pytest.raises(ValueError, match="no step"):
        state.ready(2, 0)
    with pytest.raises(ValueError, match="phase"):
        state.compute(0, 0, "some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not fit frames of 32 bytes"):
        state.frames(0, 0, 32)


def test_overflow_names_layer_and_local_row() -> None:
    weights = np.zeros((3, 2), np.float32)
    weights[2] = 3e38
    layers = [
        Dense(np.eye(2, dtype=np.float32), np.zeros(1, np.float32), "relu"),
        Dense(weights, np.zeros(1, np.float32), "relu"),
    ]
    (shard,) = split(layers, [np.zeros(2, np.intp), np.zeros(3, np.intp)], 1)
    state = state_of(shard)
    state.assemble(0, 0)
    state.compute(0, 0, "all")
    state.assemble(1, 0)
    with pytest.raises(NonFiniteError) as caught:
        state.compute(1, 0, "all")
    assert caught.value.args[1:] == (1, 2)


def test_input_must_hold_what_is_needed() -> None:
    shard = two_ranks()[0]
    state = RankState(shard, RUN, 1, PLAN, [3], 1)
    state.put_input(0, 0, block_of(sparse.csr_array(np.ones((1, 3), np.float32))))
    with pytest.raises(ValueError, match="feature 1 is needed"):
        state.assemble(0, 0)
    state = RankState(shard, RUN, 1, PLAN, [3], 1)
    state.put_input(0, 0, block_of(sparse.csr_array(np.ones((2, 4), np.float32))))
    with pytest.raises(ValueError, match="4 samples instead of 3"):
        state.assemble(0, 0)


def test_frames_past_the_budget_go_to_files(tmp_path: Path) -> None:
    sender, receiver = two_ranks()
    state = RankState(receiver, RUN, 1, PLAN, [3], 1, str(tmp_path), 0)
    assert state.accept(first_frame(state_of(sender))).status == "new"
    assert len(list(tmp_path.iterdir())) == 1
    assert state.resident_bytes() == 0
    del state
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [1, 0]}, "ascend"),
        ({"rows": [0]}, "1 neurons are named for 2 rows"),
        ({"column_source": [0, 2]}, "supplier 2 of 2"),
        ({"column_row": [0, 1]}, "row 1 of an edge of 1 rows"),
        ({"column_row": [0]}, "for 2 columns"),
        ({"column_row": [2, 0]}, "own row 2 of 2"),
        ({"receives": [(0, 0, 1)]}, "not of another rank"),
        ({"receives": [(2, 0, 1)]}, "not of another rank"),
        ({"sends": [([1], [0])]}, "is the last"),
        ({"sends": [([1], [])]}, "no target or no row"),
        ({"sends": [([1], [2])]}, "row 2 of 2"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    layer = Dense(np.ones((2, 2), np.float32), np.zeros(1, np.float32), "relu")
    kernel = layer.kernel(np.arange(2), np.arange(2))
    parts: dict[str, Any] = {
        "rows": [0, 1],
        "column_source": [0, 1],
        "column_row": [0, 0],
        "receives": [(1, 0, 1)],
        "sends": [],
    }
    first = {**parts, "column_source": [0, 0], "column_row": [0, 1], "receives": []}

    def shard_layer(parts: dict[str, Any]) -> ShardLayer:
        rows, source, row = (np.array(parts[name], np.uint32) for name in ("rows", "column_source", "column_row"))
        sends = [(targets, np.array(sent, np.uint32)) for targets, sent in parts["sends"]]
        return ShardLayer(kernel, rows, source, row, parts["receives"], sends)

    def shard(parts: dict[str, Any]) -> Shard:
        return whole_shard(0, 2, [[], parts["receives"]], [shard_layer(first), shard_layer(parts)])

    shard(parts)
    with pytest.raises(ValueError, match=message):
        shard({**parts, **change})


def test_a_shard_names_its_rank_among_the_workers() -> None:
    with pytest.raises(ValueError, match="no rank 2 among 2"):
        Shard(2, 2, [])
    with pytest.raises(ValueError, match="at least one layer"):
        Shard(0, 2, [])
