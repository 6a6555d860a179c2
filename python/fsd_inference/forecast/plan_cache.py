"""A folder that caches exchange plans, because partitioning takes long and the planner needs the same plans again."""

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
    """Return the user's folder, ``fsd-inference/plans`` under XDG_CACHE_HOME or ~/.cache; None without a home folder.

    An XDG_CACHE_HOME that is not an absolute path is ignored, as the XDG Base Directory Specification requires.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError:  # HOME is not set, and the system's user database has no entry for this user
            return None
    return base / "fsd-inference" / "plans"


class PlanCache:
    """A cache of exchange plans and ranks' work, by network, method, seed and number of workers.

    Parameters
    ----------
    folder : Path, optional
        Created when the first plan is stored; None disables the cache.
    network : bytes
        Digest of the network.
    method : str
        Partitioning method.
    seed : int
        Seed of the partitioner.
    """

    def __init__(self, folder: Path | None, network: bytes, method: str, seed: int = 0) -> None:
        self._folder = folder
        key = f"fsd-plans-{_VERSION}\0{network.hex()}\0{method}\0{seed}"
        self._prefix = hashlib.sha256(key.encode()).hexdigest()[:32]

    def get(self, workers: int) -> tuple[ExchangePlan, Work] | None:
        """Return the cached plan and work; None if there are none or the file cannot be read."""
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
        """Store a plan and its work; if the folder cannot be written, store nothing and raise nothing."""
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
