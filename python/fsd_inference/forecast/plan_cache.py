"""Plans of networks that were cut before, kept in a folder: cutting takes long, and planners ask again and again."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np

from fsd_inference.atomic import atomic_file
from fsd_inference.errors import InputError, OutputError
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import Edge, ExchangePlan

_VERSION = 1


def default_folder() -> Path | None:
    """Return the folder of this user: ``fsd-inference/plans`` under XDG_CACHE_HOME, or ~/.cache; None without a home.

    An XDG_CACHE_HOME that is not absolute is not heeded, as the specification of those variables has it.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # HOME is not set, and the user has no entry among the system's
            return None
    return base / "fsd-inference" / "plans"


class PlanCache:
    """Plans and the ranks' work by network, method, seed and number of workers.

    Parameters
    ----------
    folder : Path, optional
        Made when something is kept; without one nothing is.
    network : bytes
        Digest of the network.
    method, seed
        Of the partitioner.
    """

    def __init__(self, folder: Path | None, network: bytes, method: str, seed: int = 0) -> None:
        self._folder = folder
        key = f"fsd-plans-{_VERSION}\0{network.hex()}\0{method}\0{seed}"
        self._prefix = hashlib.sha256(key.encode()).hexdigest()[:32]

    def get(self, workers: int) -> tuple[ExchangePlan, Work] | None:
        """Return what was kept; None if there is nothing, or nothing that can be read."""
        path = self._path(workers)
        if path is None:
            return None
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                return _plan(workers, kept), Work(
                    kept["connections"], tuple(int(n) for n in kept["inputs"]), kept["shard_bytes"]
                )
        except (OSError, EOFError, ValueError, KeyError, IndexError, zipfile.BadZipFile, zlib.error):
            return None

    def put(self, workers: int, plan: ExchangePlan, work: Work) -> None:
        """Keep a plan; where the folder cannot be written, it is only not kept."""
        target = self._path(workers)
        if target is None:
            return
        edges = [edge for exchange in plan.exchanges for edge in exchange]
        with suppress(OSError, InputError, OutputError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(target) as path, path.open("wb") as file:
                np.savez_compressed(
                    file,
                    connections=work.connections,
                    inputs=np.array(work.inputs, np.int64),
                    shard_bytes=work.shard_bytes,
                    edges=np.array([len(exchange) for exchange in plan.exchanges], np.int64),
                    sources=np.array([edge.source for edge in edges], np.int64),
                    target_counts=np.array([len(edge.targets) for edge in edges], np.int64),
                    targets=np.array([target for edge in edges for target in edge.targets], np.int64),
                    row_counts=np.array([edge.rows.size for edge in edges], np.int64),
                    rows=np.concatenate([np.zeros(0, np.int32), *(edge.rows for edge in edges)]).astype(np.int32),
                )

    def _path(self, workers: int) -> Path | None:
        return self._folder and self._folder / f"{self._prefix}-p{workers}.npz"


def _plan(workers: int, kept: np.lib.npyio.NpzFile) -> ExchangePlan:
    rows = np.split(kept["rows"], np.cumsum(kept["row_counts"])[:-1])
    targets = np.split(kept["targets"], np.cumsum(kept["target_counts"])[:-1])
    edges = [
        Edge(source, tuple(to.tolist()), of_edge)
        for source, to, of_edge in zip(kept["sources"].tolist(), targets, rows, strict=False)
    ]
    ends = np.cumsum(kept["edges"]).tolist()
    starts = [0, *ends[:-1]]
    return ExchangePlan(workers, tuple(tuple(edges[a:b]) for a, b in zip(starts, ends, strict=True)))
