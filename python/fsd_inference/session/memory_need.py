"""How much memory a rank needs: an estimate to choose a function by."""

from __future__ import annotations

from fsd_inference.engine.spec import RunSpec
from fsd_inference.partitioning import Manifest

_BASE_MB = 200.0
"""Python, the libraries and the kernels' own buffers."""
_SHARD_COPIES = 3
"""A shard as it was read, as the kernels hold it, and one of them while it is made."""
_OWN_COPIES, _ALL_COPIES = 5, 2
"""Activations of the own neurons (inputs, outputs, frames, results), and of all (what others send), all alive."""


def estimate_mb(manifest: Manifest, spec: RunSpec) -> float:
    """Return what the largest rank needs in MB, if no sample dies: 200 + 3 shards + activations (5 own, 2 of a layer).

    Measured ranks of networks whose samples stay alive need 70 to 100% of it, others as little as a third.
    """
    layer = 4.0 * spec.samples * max(manifest.widths)
    copies = _OWN_COPIES / manifest.workers + _ALL_COPIES
    shard = max(entry.size for entry in manifest.shards)
    return _BASE_MB + (_SHARD_COPIES * shard + copies * layer) / 2**20
