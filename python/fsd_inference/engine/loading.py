"""Loading of a rank: its shard layer by layer, which is cached between runs, and the input rows of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.checkpoints import restore
from fsd_inference.engine.inputs import read_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.pieces import Pieces
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import RankState, Shard
from fsd_inference.limits import EARLY_FRAMES_BYTES, EARLY_FRAMES_SHARE
from fsd_inference.partitioning.kernel_shard import add_layer
from fsd_inference.partitioning.manifest import MANIFEST_FILE, Manifest
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.partitioning.shard_reader import ShardReader, open_shard
from fsd_inference.store.base import Readable, Store


class WarmShard:
    """A rank's shard in the form that the kernels take; once loaded, it can be used by any number of runs.

    Parameters
    ----------
    shard : ShardReader
        The shard, of which no layer was read yet.
    pieces : Pieces
        What it is read from; closed at the end.

    Attributes
    ----------
    plan : RankPlan
        The rank's part of the exchange plan.
    kernels : Shard
        The layers that are loaded.
    needed_features : ndarray of uint32
        Features that the rank's rows of layer 0 are connected to; empty until that layer is loaded.
    """

    def __init__(self, shard: ShardReader, pieces: Pieces) -> None:
        self.plan: RankPlan = shard.plan
        try:
            self.kernels = Shard(shard.head.rank, shard.head.workers, shard.receives)
        except ValueError as error:
            raise FileFormatError(f"shard of rank {shard.head.rank}: {error}") from error
        self.needed_features: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._connections: list[int] = []
        self._loaded = 0
        self._loading: tuple[ShardReader, Pieces] | None = shard, pieces

    @property
    def is_loaded(self) -> bool:
        """Whether all layers are loaded."""
        return self._loaded == self.plan.layers

    def connections(self, layer: int) -> int:
        """Return the connections of the rank's rows of a layer that is loaded."""
        return self._connections[layer]

    def load(self) -> Iterator[int]:
        """Load the layers that are not loaded yet; yield the number of loaded layers after each."""
        if self._loading is None:
            yield self._loaded
            return
        shard, pieces = self._loading
        try:
            for part in shard.parts():
                add_layer(self.kernels, self.plan.rank, self._loaded, part)
                if self._loaded == 0:
                    self.needed_features = part.column_row.copy()  # a view would keep the memory of other arrays
                self._connections.append(int(part.indptr[-1]))
                self._loaded += 1
                yield self._loaded
        finally:
            self._loading = None
            pieces.close()


class LoadedRank:
    """A shard that is loaded while the rank runs, with the inputs of one run (implements `driver.RankWork`).

    Parameters
    ----------
    warm : WarmShard
    runs : Store
        Store of the run's inputs.
    spec : RunSpec
    spill_dir : str, optional
        Directory for received frames that exceed the memory for them; without one all are kept in memory.
    memory_bytes : float, optional
        Memory of the rank, of which early frames take `EARLY_FRAMES_SHARE` at most, and never more than
        `EARLY_FRAMES_BYTES`.
    """

    def __init__(
        self,
        warm: WarmShard,
        runs: Store,
        spec: RunSpec,
        spill_dir: str | None = None,
        memory_bytes: float = math.inf,
    ) -> None:
        self._warm, self._runs, self._spec = warm, runs, spec
        settings = spec.settings
        self._sizes = micro_batch_sizes(spec.samples, settings.micro_batches)
        self.digests: tuple[int, ...] = ()
        self.state = RankState(
            warm.kernels,
            bytes.fromhex(spec.run),
            spec.attempt,
            bytes.fromhex(spec.plan),
            self._sizes,
            settings.threads,
            spill_dir,
            int(min(EARLY_FRAMES_BYTES, EARLY_FRAMES_SHARE * max(0.0, memory_bytes))),
            settings.wire,
        )

    @property
    def plan(self) -> RankPlan:
        """The rank's part of the exchange plan."""
        return self._warm.plan

    def load(self) -> Iterator[int]:
        """Load the layers, and with those that the attempt needs first its input or its checkpoint.

        Yield the number of loaded layers from then on.
        """
        has_rows = False
        for loaded in self._warm.load():
            if loaded < self._spec.resume_at:
                continue
            if not has_rows:
                self._put_rows()
                has_rows = True
            yield loaded

    def _put_rows(self) -> None:
        spec = self._spec
        if spec.resume_at:
            self.digests = restore(self._runs, spec, self.plan.rank, self.state)
            return
        for block in read_input(self._runs, spec.input_key, self._warm.needed_features, self._sizes, spec.features):
            self.state.put_input(block.micro_batch, block.first_feature, block.payload)

    def neuron(self, layer: int, row: int) -> int:
        """Return the global neuron of a local row."""
        return self._warm.kernels.neuron(layer, row)

    def connections(self, layer: int) -> int:
        """Return the connections of the rank's rows of a layer that is loaded."""
        return self._warm.connections(layer)


def load_manifest(read: Callable[[str], bytes | None], spec: RunSpec) -> Manifest:
    """Read the manifest of a run's plan; raise `FileFormatError` if it is missing or of another plan."""
    key = f"{spec.plan_prefix}{MANIFEST_FILE}"
    found = read(key)
    if found is None:
        raise FileFormatError(f"{key} is not in the store; upload the partitioned network again")
    manifest = Manifest.from_bytes(found, key)
    if manifest.plan_digest.hex() != spec.plan or manifest.workers != spec.settings.workers:
        raise FileFormatError(f"{key} belongs to another plan than the run; upload the partitioned network again")
    return manifest


def start_shard(plans: Readable, spec: RunSpec, rank: int, stopped: Future[None]) -> WarmShard:
    """Read the head of a rank's shard and check it against the manifest and the run; its layers are yet to be loaded.

    Parameters
    ----------
    plans : Readable
        The store of plans, or a cache of it.
    spec, rank
        The attempt, and the rank whose shard to read.
    stopped : Future
        Ends the loading once it is done.

    Raises
    ------
    FileFormatError
        The shard or the manifest is missing, damaged, or of another plan.
    """
    manifest = load_manifest(plans.get, spec)
    entry = manifest.shard(rank)
    pieces = Pieces(plans.get_range, spec.plan_prefix + entry.file, entry.size, stopped)
    try:
        shard = open_shard(pieces.read, manifest, rank)
        return WarmShard(shard, pieces)
    except BaseException:
        pieces.close()
        raise
