"""Checkpoints: the state that a rank takes out of them, and what becomes of those that are missing or damaged."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
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
    restore,
    unpack_checkpoint,
)
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.loading import LoadedRank, start_shard
from fsd_inference.engine.messages import Step
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.rank import Backends, run_rank
from fsd_inference.engine.serial import serial_state
from fsd_inference.engine.spec import RunSpec, plan_folder
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import (
    AbortedError,
    AccessDeniedError,
    DeadlineError,
    FileFormatError,
    HandedOnError,
    RunError,
    SettingError,
    StoreError,
)
from fsd_inference.kernels import RankState, decode_block
from fsd_inference.network import random_network
from fsd_inference.partitioning import Partition, partition, write_shards
from fsd_inference.session.distributed import Distributed
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import UsageMeter
from tests.support.runs import session

LAYERS, EVERY, SAMPLES = 7, 3, 11
NO_LAUNCHER: Any = None
NETWORK = random_network([40] * (LAYERS + 1), connections=6, seed=3)
X = np.random.default_rng(0).random((SAMPLES, 40), np.float32)
X[4] = 0  # a sample that is dead from the beginning


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def spec_of(store: MemoryStore, micro_batches: int = 2, *, verify: bool = True) -> RunSpec:
    """Store the only shard of the network and the input of a run; return its first attempt."""
    found: dict[str, bytes] = {}
    partition = Partition(1, tuple(np.zeros(width, np.int32) for width in NETWORK.widths[1:]))
    plan = write_shards(NETWORK, partition, found.__setitem__).plan_digest.hex()
    for name, data in found.items():
        store.put(plan_folder(plan) + name, data)
    settings = RunSettings(micro_batches=micro_batches, checkpoint_every=EVERY, verify=verify)
    spec = RunSpec("5" * 32, 0, plan, SAMPLES, 40, 1e18, settings)
    store.put(spec.input_key, encode_input(serial_state(X), micro_batch_sizes(SAMPLES, micro_batches)))
    return spec


def loaded(store: MemoryStore, spec: RunSpec) -> LoadedRank:
    rank = LoadedRank(start_shard(store, spec, 0, Future()), store, spec)
    list(rank.load())
    return rank


def compute(
    store: MemoryStore, spec: RunSpec, rank: LoadedRank | None = None
) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Compute what is left of an attempt of one rank, storing its checkpoints; return outputs and digests."""
    rank, sizes = rank or loaded(store, spec), micro_batch_sizes(spec.samples, spec.settings.micro_batches)
    writer = CheckpointWriter(spec, 0, store, Timeline(), len(sizes))
    digests = [*rank.digests, *[0] * (LAYERS - len(rank.digests))]
    for layer in range(spec.resume_at, LAYERS):
        for micro_batch in range(len(sizes))[:: (-1) ** layer]:  # whichever is ready first
            rank.state.assemble(layer, micro_batch)
            rank.state.compute(layer, micro_batch, "all")
            digests[layer] += rank.state.digest(layer, micro_batch, sum(sizes[:micro_batch]))
            if writer.is_due(layer, LAYERS):
                kept = digests if spec.settings.verify else []
                writer.take(Step(layer, micro_batch), rank.state.rows(layer, micro_batch), kept)
    writer.close()
    rows = [rows_of(rank.state.output(micro_batch)) for micro_batch in range(len(sizes))]
    return np.concatenate(rows, axis=1).T, tuple(digest % 2**64 for digest in digests)


def expected() -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Return outputs and digests of one process that has the whole network."""
    with fsd.Session(NETWORK, verify=True) as alone:
        answer = alone.infer(X, outputs="csr")
    assert answer.report.digests is not None
    assert isinstance(answer.outputs, sparse.csr_array)
    return answer.outputs.toarray(), answer.report.digests.layers


def same(one: tuple[NDArray[np.float32], tuple[int, ...]], other: tuple[NDArray[np.float32], tuple[int, ...]]) -> bool:
    return one[0].tobytes() == other[0].tobytes() and one[1] == other[1]


def rows_of(block: bytes) -> NDArray[np.float32]:
    rows, columns, indptr, indices, data = decode_block(block)
    return sparse.csr_array((data, indices, indptr), shape=(rows, columns)).toarray()


def checkpoint_of(spec: RunSpec, layer: int) -> str:
    return spec.checkpoint_key(layer, 0)


def again(spec: RunSpec, resume_at: int) -> RunSpec:
    return replace(spec, attempt=spec.attempt + 1, resume_at=resume_at)


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_a_checkpoint_leads_to_the_same_bits_and_digests(store: MemoryStore, micro_batches: int) -> None:
    spec = spec_of(store, micro_batches)
    assert same(compute(store, spec), expected())
    assert [info.key for info in store.list(spec.checkpoints_prefix)] == [checkpoint_of(spec, k) for k in (3, 6)]
    store.delete([spec.input_key])  # nothing but the checkpoint is read
    for layer in (3, 6):
        assert same(compute(store, again(spec, layer)), expected())


@pytest.mark.parametrize("every", [1, 2])
def test_a_checkpoint_after_each_layer(store: MemoryStore, every: int) -> None:
    spec = spec_of(store)
    spec = replace(spec, settings=replace(spec.settings, checkpoint_every=every))
    compute(store, spec)
    for layer in range(every, LAYERS, every):
        assert same(compute(store, again(spec, layer)), expected())


def test_attempts_share_a_shard_wherever_they_start(store: MemoryStore) -> None:
    spec = spec_of(store)
    shard = start_shard(store, spec, 0, Future())
    list(shard.load())
    for resumed in (spec, again(spec, 6), again(spec, 3), again(spec, 0)):
        rank = LoadedRank(shard, store, resumed, None)
        assert list(rank.load()) == [LAYERS]
        assert same(compute(store, resumed, rank), expected())


def test_an_attempt_that_resumed_stores_the_later_checkpoints(store: MemoryStore) -> None:
    spec = spec_of(store)
    compute(store, spec)
    kept = store.get(checkpoint_of(spec, 6)) or b""
    store.delete([checkpoint_of(spec, 6)])
    compute(store, again(spec, 3))
    found = store.get(checkpoint_of(spec, 6)) or b""
    assert unpack_checkpoint(found)[0] == unpack_checkpoint(kept)[0] == expected()[1][:6]
    assert same(compute(store, again(again(spec, 3), 6)), expected())


def test_a_checkpoint_without_digests(store: MemoryStore) -> None:
    spec = spec_of(store, verify=False)
    compute(store, spec)
    assert unpack_checkpoint(store.get(checkpoint_of(spec, 6)) or b"")[0] == ()
    assert compute(store, again(spec, 6))[0].tobytes() == expected()[0].tobytes()
    verified = replace(spec, settings=replace(spec.settings, verify=True))
    with pytest.raises(RunError, match="it has 0 digests"):
        loaded(store, again(verified, 6))


def test_no_damage_leads_to_other_rows(store: MemoryStore) -> None:
    spec = spec_of(store)
    compute(store, spec)
    key, resumed = checkpoint_of(spec, 3), again(spec, 3)
    shard = start_shard(store, spec, 0, Future())
    list(shard.load())
    whole = store.get(key) or b""

    def put_back(spec: RunSpec) -> None:
        run, plan = bytes.fromhex(spec.run), bytes.fromhex(spec.plan)
        restore(store, spec, 0, RankState(shard.kernels, run, spec.attempt, plan, micro_batch_sizes(SAMPLES, 2), 1))

    harmed = [whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :] for at in range(len(whole))]
    harmed += [whole[:at] for at in range(0, len(whole), 7)] + [whole + b"0", store.get(checkpoint_of(spec, 6)) or b""]
    digests, frames = unpack_checkpoint(whole)
    of_frames: tuple[Sequence[bytes], ...] = ([], frames[1:], [*frames, frames[0]], frames[::-1])
    harmed += [pack_checkpoint(digests, frames) for frames in of_frames]
    harmed += [pack_checkpoint(others, frames) for others in ([], digests[1:], [*digests, 7])]
    for data in harmed:
        store.put(key, data)
        with pytest.raises(RunError, match=rf"rank 0 cannot start at layer 3 from {key}: .*; try again") as caught:
            put_back(resumed)
        assert (caught.value.operation, caught.value.retryable) == ("resume", True)
        assert store.get(key) == b""
    of_another_run = replace(spec, run="6" * 32)
    store.put(of_another_run.checkpoint_key(3, 0), whole)
    with pytest.raises(RunError, match="the rows are of another run"):
        put_back(again(of_another_run, 3))
    store.delete([key])
    with pytest.raises(RunError, match="it is not in the store"):
        put_back(resumed)
    store.put(key, whole)
    put_back(resumed)


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
    assert same(compute(store, spec), expected())
    assert newest_checkpoint(store, spec) == 0


@pytest.mark.parametrize(
    ("every", "layers", "resume_at", "found"),
    [(0, 9, 0, []), (3, 9, 0, [3, 6]), (3, 10, 0, [3, 6, 9]), (3, 10, 6, [9]), (9, 9, 0, []), (20, 9, 0, [])],
)
def test_layers_of_checkpoints(every: int, layers: int, resume_at: int, found: list[int]) -> None:
    assert list(checkpoint_layers(every, layers, resume_at)) == found


COUNTS = b"\xff" * 8
"""Numbers of digests and of frames that take more memory than there is."""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FSDC",
        b"FSDR" + bytes(16),
        b"FSDC" + bytes(16),
        b"FSDC\2\0\0\0" + zlib.crc32(COUNTS).to_bytes(4, "little") + COUNTS,
    ],
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


@pytest.mark.parametrize("error", [StoreError("no answer"), AccessDeniedError("denied")])
def test_an_attempt_starts_at_the_input_if_checkpoints_cannot_be_listed(
    error: StoreError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with session(NETWORK, "local", workers=2, checkpoint_every=EVERY) as distributed:
        engine = distributed._engine
        assert isinstance(engine, Distributed)
        executor, starts = engine._prepared()[0], list[int]()
        attempt, listed = executor.attempt, executor.runs.list

        def failing(spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
            starts.append(spec.resume_at)
            ended = attempt(spec, on_layer)
            assert len(list(listed(spec.checkpoints_prefix))) == 4  # of two ranks, after two layers
            return replace(ended, error=RunError("the answer was lost", retryable=True)) if len(starts) == 1 else ended

        def unlisted(prefix: str) -> Iterator[ObjectInfo]:
            if prefix.endswith("/checkpoints/"):
                raise error
            return listed(prefix)

        monkeypatch.setattr(executor, "attempt", failing)
        monkeypatch.setattr(executor.runs, "list", unlisted)
        answer = distributed.infer(X, outputs="dense")
    assert starts == [0, 0]
    assert isinstance(answer.outputs, np.ndarray)
    assert answer.outputs.tobytes() == expected()[0].tobytes()
    assert f"checkpoints of the run could not be listed, so none is used: {error}" in caplog.messages


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_checkpoints_are_listed_before_another_attempt_only_and_not_for_longer_than_the_stall_clock(
    attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that has fallen silent would hold up a run as long again as its attempts."""
    clocks = fsd.Clocks(start_s=30.0, stall_s=7.0, run_s=300.0)
    failures = fsd.FailurePolicy(attempts=attempts, clocks=clocks, checkpoint_every=EVERY)
    left: list[float] = []

    def failing(spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        return Ended(time.time(), [], RunError("the answer was lost", retryable=True), None)

    def unlisted(prefix: str) -> Iterator[ObjectInfo]:
        if prefix.endswith("/checkpoints/"):
            left.append(left_s())
            raise StoreError("no answer")
        return iter(())

    with fsd.Session(NETWORK, channel="local", workers=2, failures=failures) as distributed:
        engine = distributed._engine
        assert isinstance(engine, Distributed)
        executor = engine._prepared()[0]
        monkeypatch.setattr(executor, "attempt", failing)
        monkeypatch.setattr(executor.runs, "list", unlisted)
        with pytest.raises(RunError, match="the answer was lost"):
            distributed.infer(X)
    assert len(left) == attempts - 1
    assert all(0 < seconds <= 7.0 for seconds in left)


def test_settings_that_checkpoints_exclude() -> None:
    with pytest.raises(SettingError, match="checkpoint_every must be a whole number of at least 0, not -1"):
        fsd.FailurePolicy(checkpoint_every=-1)
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
