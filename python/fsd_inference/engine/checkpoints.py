"""Checkpoints: what a rank has computed up to a layer, stored so that another attempt of the run starts there.

A checkpoint is a rank's rows of one layer, as frames that are addressed to a number which no rank has, the keeper. So
each has the checksum, run, plan, source, layer and micro-batch of a frame. Layout of the object: ``b"FSDC"``, version
(u32), number of the attempt that wrote it (u32), its first layer, from which its frames count layers (u32), number of
frames (u32), the length of each frame (u64), all little-endian; then the frames.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import FileFormatError, FsdError, RunError
from fsd_inference.kernels import RankState, Shard
from fsd_inference.logs import Logger
from fsd_inference.partitioning.kernel_shard import copying_layer
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

RESUME = "resume"
"""Operation of the errors of a checkpoint that cannot be used."""

_PREFIX = struct.Struct("<4sIIII")
_MAGIC = b"FSDC"
_VERSION = 1

PackedFrames = list[tuple[list[int], bytes]]
"""Targets and body of each frame."""


def checkpoint_layers(every: int, layers: int, resume_at: int = 0) -> range:
    """Return the numbers of layers after which an attempt from layer `resume_at` on stores checkpoints."""
    return range(resume_at + every, layers, every) if every else range(0)


def newest_checkpoint(store: Store, spec: RunSpec) -> int:
    """Return the layer at which another attempt can start: the last one before which all ranks have checkpoints."""
    found = Counter(int(info.key.split("/")[-2]) for info in store.list(spec.checkpoints_prefix) if info.size)
    return max((layer for layer, ranks in found.items() if ranks == spec.settings.workers), default=0)


class Checkpoint(NamedTuple):
    """The number of the attempt that wrote a checkpoint, its first layer, and the frames for the keeper."""

    attempt: int
    first_layer: int
    frames: Sequence[bytes]


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return the object of a checkpoint."""
    attempt, first, frames = checkpoint
    lengths = struct.pack(f"<{len(frames)}Q", *map(len, frames))
    return b"".join([_PREFIX.pack(_MAGIC, _VERSION, attempt, first, len(frames)), lengths, *frames])


def unpack_checkpoint(data: bytes) -> Checkpoint:
    """Parse the object of a checkpoint; raise `FileFormatError` if it is damaged or something else."""
    if len(data) < _PREFIX.size:
        raise FileFormatError("it is too short")
    magic, version, attempt, first, count = _PREFIX.unpack_from(data)
    start = _PREFIX.size + 8 * count
    if (magic, version) != (_MAGIC, _VERSION) or len(data) < start:
        raise FileFormatError(f"it is not a checkpoint of version {_VERSION}")
    frames = []
    for length in struct.unpack_from(f"<{count}Q", data, _PREFIX.size):
        frames.append(data[start : start + length])
        start += length
    if start != len(data):
        raise FileFormatError(f"it has {len(data)} bytes instead of {start}")
    return Checkpoint(attempt, first, frames)


class CheckpointWriter:
    """The checkpoints that a rank stores while it computes, one at a time.

    Parameters
    ----------
    spec, rank
        The attempt and this rank.
    store : Store
    timeline : Timeline
        Records the storing.
    micro_batches : int
        Number of micro-batches, whose rows make one checkpoint.

    Attributes
    ----------
    stored : list of int
        Bytes of each stored checkpoint.
    """

    def __init__(self, spec: RunSpec, rank: int, store: Store, timeline: Timeline, micro_batches: int) -> None:
        self._spec, self._rank, self._store, self._timeline = spec, rank, store, timeline
        self._micro_batches = micro_batches
        self._taken: defaultdict[int, list[bytes]] = defaultdict(list)
        self._done: Counter[int] = Counter()
        self._thread = ThreadPool(1, thread_name_prefix="checkpoint")
        self._storing: Future[None] | None = None
        self.stored: list[int] = []

    def is_due(self, layer: int, layers: int) -> bool:
        """Return whether the rows of a layer, of `layers`, belong to a checkpoint."""
        return layer + 1 in checkpoint_layers(self._spec.settings.checkpoint_every, layers, self._spec.resume_at)

    def take(self, layer: int, packed: PackedFrames) -> PackedFrames:
        """Take the keeper's frames of a micro-batch out of all frames after a layer, and return the others.

        The last micro-batch starts the storing, once the checkpoint before is stored: so memory holds two at most.
        """
        keeper = [self._spec.settings.workers]
        self._taken[layer] += [body for targets, body in packed if targets == keeper]
        self._done[layer] += 1
        if self._done[layer] == self._micro_batches:
            if self._storing is not None:
                self._storing.result()
            data = pack_checkpoint(Checkpoint(self._spec.attempt, self._spec.first_layer, self._taken.pop(layer)))
            self._storing = self._thread.submit(self._store_one, layer + 1, data)
        return [(targets, body) for targets, body in packed if targets != keeper]

    def close(self) -> None:
        """Wait until the last checkpoint is stored."""
        self._thread.shutdown(wait=True)

    def _store_one(self, layer: int, data: bytes) -> None:
        key = self._spec.checkpoint_key(layer, self._rank)
        try:
            with self._timeline.measure("checkpoint", layer - 1, 0):
                self._store.put(key, data)
        except FsdError as error:  # the run goes on; another attempt starts at an earlier layer
            Logger(__name__, run=self._spec.run, rank=self._rank).warning("%s was not stored: %s", key, error)
        else:
            self.stored.append(len(data))


def read_checkpoint(store: Store, spec: RunSpec, plan: RankPlan, sizes: Sequence[int]) -> list[bytes]:
    """Return a rank's rows of the layer before the one where an attempt starts: a block for each micro-batch.

    A checkpoint that cannot be used is deleted, so that no other attempt starts with it.

    Parameters
    ----------
    store : Store
    spec : RunSpec
        The attempt.
    plan : RankPlan
        The rank's part of the exchange plan.
    sizes : sequence of int
        Samples of each micro-batch.

    Raises
    ------
    RunError
        The checkpoint is missing or damaged.
    """
    key = spec.checkpoint_key(spec.resume_at, plan.rank)
    data = store.get(key)
    try:
        if data is None:
            raise FileFormatError("it is not in the store")
        return _blocks(unpack_checkpoint(data), spec, plan, sizes)
    except FileFormatError as error:
        if data is not None:
            store.put(key, b"")  # an empty object is no checkpoint, and workers may not delete objects
        message = f"rank {plan.rank} cannot start at layer {spec.resume_at} from {key}: {error}; try again"
        raise RunError(message, rank=plan.rank, layer=spec.resume_at, operation=RESUME, retryable=True) from error


def _blocks(checkpoint: Checkpoint, spec: RunSpec, plan: RankPlan, sizes: Sequence[int]) -> list[bytes]:
    """Return the rows in frames for the keeper, which is given a shard that passes on what it receives."""
    last, keeper = spec.resume_at - 1, spec.settings.workers
    place = spec.resume_at - checkpoint.first_layer  # of the layer that gets the rows
    if place < 1:
        raise FileFormatError(f"an attempt from layer {checkpoint.first_layer} on cannot have written it")
    rows = plan.boundary[last] + plan.interior[last]
    edges = [(plan.rank, len(plan.sends[last]), rows)] if rows else []
    shard = Shard(keeper, keeper + 1, [[]] * place + [edges])
    nothing = copying_layer(np.empty(0, np.uint32))
    for layer in range(place):
        shard.add(layer, nothing)
    shard.add(place, copying_layer(np.arange(rows, dtype=np.uint32), source=edges[0]) if rows else nothing)
    state = RankState(
        shard, bytes.fromhex(spec.run), checkpoint.attempt, bytes.fromhex(spec.plan), sizes, spec.settings.threads
    )
    for number, frame in enumerate(checkpoint.frames):
        status = state.accept(frame).status
        if status != "new":
            raise FileFormatError(f"its frame {number} is {status}")
    if not all(state.ready(place, m) for m in range(len(sizes))):
        raise FileFormatError("it is not complete")
    try:
        for micro_batch in range(len(sizes)):
            for layer in range(place + 1):
                state.assemble(layer, micro_batch)
                state.compute(layer, micro_batch, "all")
        return [state.output(micro_batch) for micro_batch in range(len(sizes))]
    except ValueError as error:
        raise FileFormatError(str(error)) from error
