"""Loading: the time to a rank's first layer, its peak memory, and networks that exceed memory.

    python -m tests.bench.bench_loading [--neurons 16384] [--layers 24] [--streamed NETWORK --memory-limit 1500]

A rank reads its shard from a store that answers each request after 60 ms and sends 80 MB/s a connection, as S3 does,
once as a whole and once by ranges, in turns. Peak memory is that of two local ranks. With --streamed, a stored network
is run within a memory limit; its rate is that of a whole run, reading included.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.config import RunSettings
from fsd_inference.engine.loading import start_shard
from fsd_inference.engine.spec import RunSpec, plan_folder
from fsd_inference.partitioning import read_manifest
from fsd_inference.store.memory import MemoryStore

_LATENCY_S, _BYTES_PER_S = 0.060, 80e6
_TURNS = 3


class Distant(MemoryStore):
    """A store whose every request takes as long as one to S3."""

    def get(self, key: str) -> bytes | None:
        return _sent(super().get(key))

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        return _sent(super().get_range(key, start, length))


def _sent(data: bytes | None) -> bytes | None:
    time.sleep(_LATENCY_S + len(data or b"") / _BYTES_PER_S)
    return data


class Whole(Distant):
    """The same store, from which a shard is read by a single request."""

    def __init__(self) -> None:
        super().__init__()
        self._reading = threading.Lock()
        self._object = b""

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        with self._reading:
            if start == 0 or not self._object:
                self._object = self.get(key) or b""
            return self._object[start : start + length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=16384)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--streamed", type=Path, action="append", default=[])
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--memory-limit", type=int, default=1500)
    arguments = parser.parse_args()
    if arguments.streamed:
        for path in arguments.streamed:
            _stream(path, arguments.samples, arguments.memory_limit)
        return
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        network = fsd.random_network([arguments.neurons] * (arguments.layers + 1), 32, seed=3)
        fsd.partition(network, shards, workers=2, method="random")
        _time(shards)
        x = np.random.default_rng(5).random((100, arguments.neurons), np.float32) < 0.2
        with fsd.Session(shards, channel="local", workers=2) as session:
            peak = session.infer(sparse.csr_array(x.astype(np.float32))).report.peak_rss_bytes
        size = max(entry.size for entry in read_manifest(shards).shards)
        print(f"peak of a rank with 100 samples: {peak / 1e6:.0f} MB, of which its shard {size / 1e6:.0f} MB")


def _time(shards: Path) -> None:
    manifest = read_manifest(shards)
    plan = manifest.plan_digest.hex()
    whole = replace(manifest, shards=tuple(replace(entry, head=None) for entry in manifest.shards))
    stores = {"as a whole": (Whole(), whole), "by ranges": (Distant(), manifest)}
    for store, described in stores.values():
        store.put(f"{plan_folder(plan)}manifest.json", described.to_bytes())
        name = manifest.shards[0].file
        store.put(plan_folder(plan) + name, (shards / name).read_bytes())
    spec = RunSpec("0" * 32, 0, plan, 1, manifest.features, 1e18, RunSettings(workers=manifest.workers))
    best = dict.fromkeys(stores, (np.inf, np.inf))
    for _ in range(_TURNS):
        for name, (store, _) in stores.items():
            first, *_, last = _seconds(store, spec)
            best[name] = (min(best[name][0], first), min(best[name][1], last))
    print("| shard read | first layer, s | all layers, s |\n|---|---|---|")
    for name, (first, last) in best.items():
        print(f"| {name} | {first:.3f} | {last:.3f} |")


def _seconds(store: MemoryStore, spec: RunSpec) -> Iterator[float]:
    """Yield the seconds until each layer of rank 0 is loaded."""
    started = time.perf_counter()
    for _ in start_shard(store, spec, 0, Future()).load():
        yield time.perf_counter() - started


def _stream(path: Path, samples: int, limit_mb: int) -> None:
    network = fsd.Network.load(path)
    x = fsd.digits(network.widths[0], samples)
    with fsd.Session(network, memory_limit_mb=limit_mb) as session:
        report = session.infer(x).report
    rate = report.connections * samples / report.wall_s
    print(
        f"{path.name}: {report.connections:,} connections x {samples} samples in {report.wall_s:.1f} s, "
        f"{rate / 1e9:.1f} GEdges/s; computed {report.compute_s:.1f} s, waited for layers {report.load_s:.1f} s; "
        f"peak {report.peak_rss_bytes / 2**20:,.0f} MB of {limit_mb:,} MB"
    )


if __name__ == "__main__":
    main()
