"""Loading of a rank: its shard, which is cached between runs, and the input rows of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.inputs import read_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError
from fsd_inference.kernels import RankState, Shard
from fsd_inference.partitioning.kernel_shard import kernel_shard
from fsd_inference.partitioning.manifest import MANIFEST_FILE, Manifest
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.partitioning.reading import read_shard
from fsd_inference.partitioning.shard import RankShard
from fsd_inference.store.base import Store


@dataclass(frozen=True, slots=True)
class WarmShard:
    """A rank's shard in the form that the kernels take; can be reused by any number of runs."""

    shard: RankShard
    kernels: Shard
    plan: RankPlan

    @property
    def needed_features(self) -> NDArray[np.uint32]:
        """Features that the rank's rows of layer 0 are connected to."""
        return self.shard.parts[0].column_row


@dataclass(frozen=True, slots=True)
class LoadedRank:
    """A warm shard with the inputs of one run (implements `driver.RankWork`)."""

    warm: WarmShard
    ready: RankState

    @property
    def plan(self) -> RankPlan:
        """The rank's part of the exchange plan."""
        return self.warm.plan

    def state(self) -> RankState:
        """Return the kernel state that holds the run's inputs."""
        return self.ready

    def neuron(self, layer: int, row: int) -> int:
        """Return the global neuron of a local row."""
        return int(self.warm.shard.parts[layer].rows[row])


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


def load_shard(read: Callable[[str], bytes | None], spec: RunSpec, rank: int) -> WarmShard:
    """Read a rank's shard and check it against the manifest and the run.

    Parameters
    ----------
    read : callable
        Returns the object with a given key, or None if there is none: the store of plans, or a cache of it.
    spec, rank
        The attempt, and the rank whose shard to read.

    Raises
    ------
    FileFormatError
        The shard or the manifest is missing, damaged, or of another plan.
    """
    manifest = load_manifest(read, spec)
    shard_key = spec.plan_prefix + manifest.shard(rank).file
    data = read(shard_key)
    if data is None:
        raise FileFormatError(f"{shard_key} is not in the store; upload the partitioned network again")
    shard = read_shard(data, manifest, rank)
    return WarmShard(shard, kernel_shard(shard), shard.plan)


def load_rank(runs: Store, spec: RunSpec, warm: WarmShard, spill_dir: str | None) -> LoadedRank:
    """Read the input rows that a rank needs, and return the rank ready to compute."""
    settings = spec.settings
    sizes = micro_batch_sizes(spec.samples, settings.micro_batches)
    state = RankState(
        warm.kernels,
        bytes.fromhex(spec.run),
        spec.attempt,
        bytes.fromhex(spec.plan),
        sizes,
        settings.threads,
        spill_dir,
        settings.spill_bytes,
    )
    for block in read_input(runs, spec.input_key, warm.needed_features, sizes, spec.features):
        state.put_input(block.micro_batch, block.first_feature, block.payload)
    return LoadedRank(warm, state)
