"""Checkpoints: the state that a rank takes out of them, and what becomes of those that are missing or damaged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.channels.base import Limits
from fsd_inference.config import RunSettings
from fsd_inference.deadlines import left_s
from fsd_inference.engine.checkpoints import (
    CheckpointWriter,
    checkpoint_layers,
    newest_checkpoint,
    pack_checkpoint,
    read_checkpoint,
    unpack_checkpoint,
)
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.loading import LoadedRank, start_shard
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.rank import Backends, run_rank
from fsd_inference.engine.serial import serial_state
from fsd_inference.engine.spec import RunSpec, plan_folder
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import (
    AbortedError,
    DeadlineError,
    FileFormatError,
    HandedOnError,
    RunError,
    SettingError,
    StoreError,
)
from fsd_inference.kernels import decode_block
from fsd_inference.network import random_network
from fsd_inference.partitioning import Partition, partition, write_shards
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import UsageMeter
from tests.support.runs import serial

LAYERS, EVERY, SAMPLES = 7, 3, 11
NO_LAUNCHER: Any = None
NETWORK = random_network([40] * (LAYERS + 1), connections=6, seed=3)
X = np.random.default_rng(0).random((SAMPLES, 40), np.float32)
X[4] = 0  # a sample that is dead from the beginning


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def spec_of(store: MemoryStore, micro_batches: int = 2) -> RunSpec:
    """Store the only shard of the network and the input of a run; return its first attempt."""
    found: dict[str, bytes] = {}
    partition = Partition(1, tuple(np.zeros(width, np.int32) for width in NETWORK.widths[1:]))
    plan = write_shards(NETWORK, partition, found.__setitem__).plan_digest.hex()
    for name, data in found.items():
        store.put(plan_folder(plan) + name, data)
    settings = RunSettings(micro_batches=micro_batches, checkpoint_every=EVERY)
    spec = RunSpec("5" * 32, 0, plan, SAMPLES, 40, 1e18, settings)
    store.put(spec.input_key, encode_input(serial_state(X), micro_batch_sizes(SAMPLES, micro_batches)))
    return spec


def loaded(store: MemoryStore, spec: RunSpec) -> LoadedRank:
    rank = LoadedRank(start_shard(store, spec, 0, Future()), store, spec)
    list(rank.load())
    return rank


def compute(store: MemoryStore, spec: RunSpec) -> NDArray[np.float32]:
    """Compute what is left of an attempt of one rank, storing its checkpoints; return the outputs."""
    rank, sizes = loaded(store, spec), micro_batch_sizes(spec.samples, spec.settings.micro_batches)
    writer = CheckpointWriter(spec, 0, store, Timeline(), len(sizes))
    for layer in range(spec.first_layer, LAYERS):
        for micro_batch in range(len(sizes)):
            place = layer - spec.first_layer
            rank.state.assemble(place, micro_batch)
            rank.state.compute(place, micro_batch, "all")
            if writer.is_due(layer, LAYERS):
                assert writer.take(layer, rank.state.frames(place, micro_batch, 300)) == []
    writer.close()
    return np.concatenate([rows_of(rank.state.output(micro_batch)) for micro_batch in range(len(sizes))], axis=1).T


def rows_of(block: bytes) -> NDArray[np.float32]:
    rows, columns, indptr, indices, data = decode_block(block)
    return sparse.csr_array((data, indices, indptr), shape=(rows, columns)).toarray()


def checkpoint_of(spec: RunSpec, layer: int) -> str:
    return spec.checkpoint_key(layer, 0)


def again(spec: RunSpec, resume_at: int) -> RunSpec:
    return replace(spec, attempt=spec.attempt + 1, resume_at=resume_at)


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_a_checkpoint_holds_the_rows_of_its_layer_and_leads_to_the_same_bits(
    store: MemoryStore, micro_batches: int
) -> None:
    spec = spec_of(store, micro_batches)
    whole = serial(NETWORK, X).toarray()
    assert compute(store, spec).tobytes() == whole.tobytes()
    assert [info.key for info in store.list(spec.checkpoints_prefix)] == [checkpoint_of(spec, k) for k in (3, 6)]
    plan = loaded(store, spec).plan
    for layer in (3, 6):
        resumed = again(spec, layer)
        blocks = read_checkpoint(store, resumed, plan, micro_batch_sizes(SAMPLES, micro_batches))
        before = fsd.Network([NETWORK.layer(k) for k in range(layer)])
        rows = np.concatenate([rows_of(block) for block in blocks], axis=1).T
        assert rows.tobytes() == serial(before, X).toarray().tobytes()
        store.delete([spec.input_key])  # nothing but the checkpoint is read
        assert compute(store, resumed).tobytes() == whole.tobytes()


def test_an_attempt_that_resumed_stores_the_later_checkpoints(store: MemoryStore) -> None:
    spec = spec_of(store)
    compute(store, spec)
    kept = store.get(checkpoint_of(spec, 6))
    store.delete([checkpoint_of(spec, 6)])
    compute(store, again(spec, 3))
    found = store.get(checkpoint_of(spec, 6))
    assert found is not None
    assert kept is not None
    assert unpack_checkpoint(found)[:2] == (1, 2)
    assert compute(store, again(again(spec, 0), 6)).tobytes() == serial(NETWORK, X).toarray().tobytes()


def test_no_damage_leads_to_other_rows(store: MemoryStore) -> None:
    spec = spec_of(store)
    compute(store, spec)
    plan, sizes = loaded(store, spec).plan, micro_batch_sizes(SAMPLES, 2)
    key, resumed = checkpoint_of(spec, 3), again(spec, 3)
    whole = store.get(key)
    assert whole is not None
    of_another_run, of_another_layer = replace(spec, run="6" * 32), checkpoint_of(spec, 6)
    harmed = [whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :] for at in range(len(whole))]
    harmed += [whole[:at] for at in range(0, len(whole), 7)] + [whole + b"0", store.get(of_another_layer) or b""]
    right = unpack_checkpoint(whole)
    of_frames: tuple[Sequence[bytes], ...] = ([], right.frames[1:], [*right.frames, right.frames[0]])
    harmed += [pack_checkpoint(right._replace(frames=frames)) for frames in of_frames]
    harmed += [pack_checkpoint(right._replace(first_layer=first)) for first in (1, 2, 3)]
    for data in harmed:
        store.put(key, data)
        with pytest.raises(RunError, match=rf"rank 0 cannot start at layer 3 from {key}: .*; try again") as caught:
            read_checkpoint(store, resumed, plan, sizes)
        assert (caught.value.operation, caught.value.retryable) == ("resume", True)
        assert store.get(key) == b""
    store.put(of_another_run.checkpoint_key(3, 0), whole)
    with pytest.raises(RunError, match="frame 0 is foreign"):
        read_checkpoint(store, again(of_another_run, 3), plan, sizes)
    store.delete([key])
    with pytest.raises(RunError, match="it is not in the store"):
        read_checkpoint(store, resumed, plan, sizes)


def test_the_newest_checkpoint_is_one_that_all_ranks_have(store: MemoryStore) -> None:
    spec = replace(spec_of(store), settings=RunSettings(workers=3, checkpoint_every=2))
    assert newest_checkpoint(store, spec) == 0
    for layer, rank in ((2, 0), (2, 1), (2, 2), (4, 2), (4, 0), (6, 1)):
        store.put(spec.checkpoint_key(layer, rank), b"rows")
    assert newest_checkpoint(store, spec) == 2
    store.put(spec.checkpoint_key(4, 1), b"rows")
    assert newest_checkpoint(store, spec) == 4
    store.put(spec.checkpoint_key(4, 2), b"")  # found damaged
    assert newest_checkpoint(store, spec) == 2


class Full(MemoryStore):
    """A store that takes no checkpoints."""

    def put(self, key: str, data: bytes) -> str:
        if "/checkpoints/" in key:
            raise StoreError(f"{key}: no space is left")
        return super().put(key, data)


def test_a_checkpoint_that_cannot_be_stored_does_not_end_the_run() -> None:
    store = Full()
    spec = spec_of(store)
    assert compute(store, spec).tobytes() == serial(NETWORK, X).toarray().tobytes()
    assert newest_checkpoint(store, spec) == 0


@pytest.mark.parametrize(
    ("every", "layers", "resume_at", "found"),
    [(0, 9, 0, []), (3, 9, 0, [3, 6]), (3, 10, 0, [3, 6, 9]), (3, 10, 6, [9]), (9, 9, 0, []), (20, 9, 0, [])],
)
def test_layers_of_checkpoints(every: int, layers: int, resume_at: int, found: list[int]) -> None:
    assert list(checkpoint_layers(every, layers, resume_at)) == found


@pytest.mark.parametrize(
    "data", [b"", b"FSDC", b"FSDR" + bytes(12), b"FSDC" + bytes(12), b"FSDC\1\0\0\0" + b"\xff" * 8]
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    with pytest.raises(FileFormatError):
        unpack_checkpoint(data)


def test_the_limit_of_a_function_ends_an_attempt_that_can_hand_on() -> None:
    spec = replace(spec_of(MemoryStore()), deadline=100.0)
    assert spec.ending_by(100.0) is spec
    assert (spec.ending_by(90.0).deadline, spec.ending_by(90.0).hands_on) == (90.0, True)
    assert spec.ending_by(90.0).ending_by(95.0) == spec.ending_by(90.0)
    without = replace(spec, settings=RunSettings())
    assert (without.ending_by(90.0).deadline, without.ending_by(90.0).hands_on) == (90.0, False)
    assert RunSpec.from_json(spec.ending_by(90.0).to_json()) == spec.ending_by(90.0)


@pytest.mark.parametrize("hands_on", [True, False])
def test_requests_outlast_only_an_attempt_that_hands_on(store: MemoryStore, hands_on: bool) -> None:
    """One that ended at the deadline would fail the attempt instead."""
    spec = replace(spec_of(store), deadline=time.time() + 0.5, hands_on=hands_on)
    left: list[float] = []

    def load(stopped: Future[None]) -> LoadedRank:
        stopped.result()  # which the end of the rank sets
        left.append(left_s())
        raise AbortedError("the rank has ended")

    channel = SimpleNamespace(limits=Limits(1, 1, 1), meter=UsageMeter(), receive=lambda *_: [])
    backends = Backends(store, store, channel)  # type: ignore[arg-type]
    ended = run_rank(spec=spec, rank=0, starter=None, started=0.0, load=load, backends=backends, launcher=NO_LAUNCHER)
    assert ended is not None
    assert isinstance(ended.error, HandedOnError if hands_on else DeadlineError)
    assert (left[0] > 0) == hands_on


def test_settings_that_exclude_each_other() -> None:
    for every in (-1, 1):
        with pytest.raises(
            SettingError, match=f"checkpoint_every must be 0 or a whole number of at least 2, not {every}"
        ):
            fsd.FailurePolicy(checkpoint_every=every)
    with pytest.raises(SettingError, match="wire bfloat16 rounds"):
        RunSettings(workers=2, wire="bfloat16", checkpoint_every=4)
    with pytest.raises(SettingError, match="no digests of the layers before it"):
        RunSettings(workers=2, verify=True, checkpoint_every=4)
    with pytest.raises(SettingError, match="processes or functions"):
        fsd.Session(NETWORK, failures=fsd.FailurePolicy(checkpoint_every=4))


def test_checkpoints_as_often_as_costs_least(tmp_path: Path) -> None:
    """This process has none, and shards cannot be predicted."""
    chosen = fsd.FailurePolicy(checkpoint_every="auto")
    with fsd.Session(NETWORK, failures=chosen) as alone:
        assert alone.infer(X).report.predicted is None
    partition(NETWORK, tmp_path / "shards", workers=2)
    with pytest.raises(SettingError, match="which needs the network itself: give its path, or a number of layers"):
        fsd.Session(tmp_path / "shards", channel="local", failures=chosen)
