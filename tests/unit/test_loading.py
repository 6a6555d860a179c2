"""Loading of a rank: layer by layer while it computes, from ranges, checked, and ended when the rank ends."""

from __future__ import annotations

import json
import math
import threading
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.config import RunSettings
from fsd_inference.engine import loading as engine_loading
from fsd_inference.engine import pieces as engine_pieces
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.loading import LoadedRank, start_shard
from fsd_inference.engine.pieces import Pieces, requests
from fsd_inference.engine.serial import serial_outputs, serial_state
from fsd_inference.engine.spec import RunSpec, plan_folder
from fsd_inference.errors import AbortedError, FileFormatError
from fsd_inference.kernels import decode_block
from fsd_inference.network import Network, random_network
from fsd_inference.partitioning import Manifest, Partition, write_shards
from fsd_inference.store.memory import MemoryStore

RUN = "0" * 32


class Gate(MemoryStore):
    """A store that holds ranges back from an offset on until it is opened."""

    def __init__(self, closed_from: int) -> None:
        super().__init__()
        self.closed_from, self.opened = closed_from, threading.Event()

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        if "/rank-" in key and start >= self.closed_from:
            assert self.opened.wait(30)
        return super().get_range(key, start, length)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_pieces, "PIECE_BYTES", 1000)


def stored(store: MemoryStore, network: Network) -> tuple[Manifest, RunSpec, NDArray[np.float32]]:
    """Store the only shard of a network, and the input of a run."""
    found: dict[str, bytes] = {}
    partition = Partition(1, tuple(np.zeros(width, np.int32) for width in network.widths[1:]))
    manifest = write_shards(network, partition, found.__setitem__)
    plan = manifest.plan_digest.hex()
    for name, data in found.items():
        store.put(plan_folder(plan) + name, data)
    x = np.random.default_rng(2).random((5, network.widths[0]), np.float32)
    spec = RunSpec(RUN, 0, plan, 5, network.widths[0], 1e18, RunSettings(workers=1))
    store.put(spec.input_key, encode_input(serial_state(x), (5,)))
    return manifest, spec, x


def rank_of(store: MemoryStore, spec: RunSpec, stopped: Future[None] | None = None) -> LoadedRank:
    return LoadedRank(start_shard(store, spec, 0, stopped or Future()), store, spec)


def outputs(rank: LoadedRank, layers: int) -> NDArray[np.float32]:
    for layer in range(layers):
        if layer:
            rank.state.assemble(layer, 0)
            rank.state.compute(layer, 0, "all")
    rows, columns, indptr, indices, data = decode_block(rank.state.output(0))
    return sparse.csr_array((data, indices, indptr), shape=(rows, columns)).toarray().T


def test_the_first_layer_is_computed_before_the_last_is_there() -> None:
    network = random_network([60, 50, 40, 30], connections=20, seed=1)
    store = Gate(0)
    manifest, spec, x = stored(store, network)
    size = manifest.shards[0].size
    assert requests(size) > 5
    store.closed_from = size - 1500
    rank = rank_of(store, spec)
    loading = rank.load()
    assert next(loading) == 1
    rank.state.assemble(0, 0)
    rank.state.compute(0, 0, "all")
    with pytest.raises(RuntimeError, match="layer 1, micro-batch 0: its layer is not loaded"):
        rank.state.assemble(1, 0)
    store.opened.set()
    assert list(loading) == [2, 3]
    found = outputs(rank, 3)
    np.testing.assert_array_equal(found, serial_outputs(network, sparse.csr_array(x)).toarray())
    assert rank.neuron(2, 7) == 7


def test_a_loaded_shard_serves_another_run() -> None:
    store = MemoryStore()
    _, spec, _ = stored(store, random_network([30, 20, 10], connections=10))
    warm = start_shard(store, spec, 0, Future())
    assert not warm.is_loaded
    assert list(LoadedRank(warm, store, spec).load()) == [1, 2]
    assert warm.is_loaded
    assert list(LoadedRank(warm, store, spec).load()) == [2]


@pytest.mark.parametrize(
    ("memory_bytes", "most"),
    [(128 << 20, 16 << 20), (1769 << 20, 1769 << 17), (10_240 << 20, 512 << 20), (math.inf, 512 << 20), (-1.0, 0)],
)
def test_early_frames_take_a_share_of_the_memory(
    memory_bytes: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[object, ...]] = []
    monkeypatch.setattr(engine_loading, "RankState", lambda *arguments: given.append(arguments))
    store = MemoryStore()
    _, spec, _ = stored(store, random_network([30, 20, 10], connections=10))
    LoadedRank(start_shard(store, spec, 0, Future()), store, spec, "somewhere", memory_bytes)
    assert [arguments[6:8] for arguments in given] == [("somewhere", most)]


def test_shards_of_earlier_releases_are_loaded_as_a_whole() -> None:
    network = random_network([30, 20, 10], connections=10)
    store = MemoryStore()
    manifest, spec, x = stored(store, network)
    before = replace(manifest, shards=tuple(replace(entry, head=None) for entry in manifest.shards))
    assert "head" not in before.to_bytes().decode()
    store.put(plan_folder(spec.plan) + "manifest.json", before.to_bytes())
    rank = rank_of(store, spec)
    assert list(rank.load()) == [1, 2]
    rank.state.assemble(0, 0)
    rank.state.compute(0, 0, "all")
    np.testing.assert_array_equal(outputs(rank, 2), serial_outputs(network, sparse.csr_array(x)).toarray())


@pytest.mark.parametrize(("at", "layers"), [(-1, 2), (-800, 2), (0, None), (900, None)])
def test_damage_is_found_before_the_layer_is_used(at: int, layers: int | None) -> None:
    store = MemoryStore()
    manifest, spec, _ = stored(store, random_network([60, 50, 40, 30], connections=20, seed=1))
    key = plan_folder(spec.plan) + manifest.shards[0].file
    damaged = bytearray(store.get(key) or b"")
    damaged[at] ^= 1
    store.put(key, bytes(damaged))
    if layers is None:
        with pytest.raises(FileFormatError, match=r"rank-00000\.safetensors: its digest differs"):
            rank_of(store, spec)
        return
    loading = rank_of(store, spec).load()
    assert [next(loading) for _ in range(layers)] == list(range(1, layers + 1))
    with pytest.raises(FileFormatError, match=rf"rank-00000\.safetensors: layer {layers}: its digest differs"):
        next(loading)


@pytest.mark.parametrize("left", [0, 10, 5000])
def test_an_object_that_is_too_short_is_named(left: int) -> None:
    store = MemoryStore()
    manifest, spec, _ = stored(store, random_network([60, 50, 40, 30], connections=20, seed=1))
    key = plan_folder(spec.plan) + manifest.shards[0].file
    store.put(key, (store.get(key) or b"")[:left])
    with pytest.raises(FileFormatError, match=rf"rank-00000\.safetensors has {left} bytes, not the"):
        list(rank_of(store, spec).load())
    store.delete([key])
    with pytest.raises(FileFormatError, match=r"rank-00000\.safetensors is not in the store"):
        rank_of(store, spec)


def test_a_head_that_cannot_be_is_refused() -> None:
    manifest, _, _ = stored(MemoryStore(), random_network([30, 20], connections=10))
    value = json.loads(manifest.to_bytes())
    value["shards"][0]["head"]["size"] = value["shards"][0]["size"] + 1
    with pytest.raises(FileFormatError, match="not the manifest"):
        Manifest.from_bytes(json.dumps(value).encode())


def test_loading_ends_with_its_rank_while_a_range_is_on_its_way() -> None:
    store = Gate(0)
    manifest, spec, _ = stored(store, random_network([60, 50, 40, 30], connections=20, seed=1))
    store.closed_from = manifest.shards[0].size - 1500
    stopped: Future[None] = Future()
    rank = rank_of(store, spec, stopped)
    ended: list[Exception] = []

    def load() -> None:
        try:
            list(rank.load())
        except AbortedError as error:
            ended.append(error)

    thread = threading.Thread(target=load)
    thread.start()
    stopped.set_result(None)
    thread.join(30)
    assert not thread.is_alive()
    assert len(ended) == 1
    store.opened.set()


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 7321])
def test_pieces_are_the_object(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    asked: list[int] = []

    def get_range(_: str, start: int, length: int) -> bytes:
        asked.append(start)
        return data[start : start + length]

    pieces = Pieces(get_range, "key", size, Future())
    found = b"".join(pieces.read(count) for count in (0, 1, 998, 1, 2500, size))
    assert found == data
    assert len(pieces.read(10)) == 0
    pieces.close()
    assert len(asked) == (requests(size) if size else 0)
