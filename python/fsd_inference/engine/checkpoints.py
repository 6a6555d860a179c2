"""Checkpoints: what a rank has computed up to a layer, stored so that another attempt of the run starts there.

A checkpoint is a rank's rows of one layer, a frame for each micro-batch, which says of which run, plan, rank, layer and
micro-batch they are; and if the run is to be verified, the digests of the layers so far. Layout of the object:
``b"FSDC"``, version (u32), CRC-32 of all that follows before the frames (u32), number of digests (u32), number of
frames (u32), the digests (u64), the length of each frame (u64), all little-endian; then the frames.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future

from fsd_inference.engine.messages import Step
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.timeline import Timeline
from fsd_inference.errors import FileFormatError, FsdError, RunError
from fsd_inference.kernels import RankState
from fsd_inference.logs import Logger
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

RESUME = "resume"
"""Operation of the errors of a checkpoint that cannot be used."""

_PREFIX = struct.Struct("<4sII")
_COUNTS = struct.Struct("<II")
_MAGIC = b"FSDC"
_VERSION = 2


def checkpoint_layers(every: int, layers: int, resume_at: int = 0) -> range:
    """Return the numbers of layers after which an attempt from layer `resume_at` on stores checkpoints."""
    return range(resume_at + every, layers, every) if every else range(0)


def newest_checkpoint(store: Store, spec: RunSpec) -> int:
    """Return the layer at which another attempt can start: the last one before which all ranks have checkpoints."""
    found = Counter(int(info.key.split("/")[-2]) for info in store.list(spec.checkpoints_prefix) if info.size)
    return max((layer for layer, ranks in found.items() if ranks == spec.settings.workers), default=0)


def pack_checkpoint(digests: Sequence[int], frames: Sequence[bytes]) -> bytes:
    """Return the object of a checkpoint."""
    numbers = [digest % 2**64 for digest in digests] + [len(frame) for frame in frames]
    head = _COUNTS.pack(len(digests), len(frames)) + struct.pack(f"<{len(numbers)}Q", *numbers)
    return b"".join([_PREFIX.pack(_MAGIC, _VERSION, zlib.crc32(head)), head, *frames])


def unpack_checkpoint(data: bytes) -> tuple[tuple[int, ...], list[bytes]]:
    """Return digests and frames of the object of a checkpoint.

    Raises
    ------
    FileFormatError
        It is damaged, other than in its frames, or something else.
    """
    start = _PREFIX.size + _COUNTS.size
    if len(data) < start:
        raise FileFormatError("it is too short")
    magic, version, crc32 = _PREFIX.unpack_from(data)
    if (magic, version) != (_MAGIC, _VERSION):
        raise FileFormatError(f"it is not a checkpoint of version {_VERSION}")
    digests, frames = _COUNTS.unpack_from(data, _PREFIX.size)
    end = start + 8 * (digests + frames)
    if len(data) < end or zlib.crc32(data[_PREFIX.size : end]) != crc32:
        raise FileFormatError("it is damaged")
    numbers = struct.unpack_from(f"<{digests + frames}Q", data, start)
    bodies = []
    for length in numbers[digests:]:
        bodies.append(data[end : end + length])
        end += length
    if end != len(data):
        raise FileFormatError(f"it has {len(data)} bytes instead of {end}")
    return numbers[:digests], bodies


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
        self._taken: defaultdict[int, dict[int, bytes]] = defaultdict(dict)  # by layer and micro-batch
        self._thread = ThreadPool(1, thread_name_prefix="checkpoint")
        self._storing: Future[None] | None = None
        self.stored: list[int] = []

    def is_due(self, layer: int, layers: int) -> bool:
        """Return whether the rows of a layer, of `layers`, belong to a checkpoint."""
        return layer + 1 in checkpoint_layers(self._spec.settings.checkpoint_every, layers, self._spec.resume_at)

    def take(self, step: Step, rows: bytes, digests: Sequence[int]) -> None:
        """Add a micro-batch to the checkpoint after a layer.

        The last micro-batch starts the storing, once the checkpoint before is stored: so memory holds two at most.

        Parameters
        ----------
        step : Step
            The layer and the micro-batch; micro-batches come in any order.
        rows : bytes
            Frame with the rank's rows.
        digests : sequence of int
            Digests of the layers, which are complete up to this one with the last micro-batch; empty if there are none.
        """
        layer, micro_batch = step
        self._taken[layer][micro_batch] = rows
        if len(self._taken[layer]) == self._micro_batches:
            if self._storing is not None:
                self._storing.result()
            taken = self._taken.pop(layer)
            data = pack_checkpoint(digests[: layer + 1], [taken[number] for number in sorted(taken)])
            self._storing = self._thread.submit(self._store_one, layer + 1, data)

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


def restore(store: Store, spec: RunSpec, rank: int, state: RankState) -> tuple[int, ...]:
    """Put a rank's rows of the layer before the one where an attempt starts into its state.

    A checkpoint that cannot be used is marked as such, so that no other attempt starts with it.

    Parameters
    ----------
    store : Store
    spec, rank
        The attempt and this rank.
    state : RankState
        The state, to which nothing was given yet; the layer of the rows is loaded.

    Returns
    -------
    tuple of int
        Digests of the rank's part of each layer before the one where the attempt starts, if the run is to be verified.

    Raises
    ------
    RunError
        The checkpoint is missing or damaged.
    """
    key = spec.checkpoint_key(spec.resume_at, rank)
    data = store.get(key)
    try:
        if data is None:
            raise FileFormatError("it is not in the store")
        digests, frames = unpack_checkpoint(data)
        expected = (
            spec.resume_at * spec.settings.verify,
            len(micro_batch_sizes(spec.samples, spec.settings.micro_batches)),
        )
        if (len(digests), len(frames)) != expected:
            raise FileFormatError(f"it has {len(digests)} digests and {len(frames)} micro-batches, not {expected}")
        for micro_batch, rows in enumerate(frames):
            state.restore(spec.resume_at - 1, micro_batch, rows)
    except (FileFormatError, ValueError) as error:
        if data is not None:
            store.put(key, b"")  # an empty object is no checkpoint, and workers may not delete objects
        message = f"rank {rank} cannot start at layer {spec.resume_at} from {key}: {error}; try again"
        raise RunError(message, rank=rank, layer=spec.resume_at, operation=RESUME, retryable=True) from error
    return digests
