"""Packing and unpacking of the rows that ranks exchange, one thread, beside other ways: ``make bench BENCH=codec``.

One rank packs its rows into a frame (`RankState.frames`), another one unpacks it into panels (`RankState.assemble`).
Figures are GB of float32 rows a processor second, the best of several turns taken in rotation. NumPy packs a bitmap and
the nonzeros; blosc2 compresses the rows as bytes and is left out, with a message, if it is not installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import sparse

from fsd_inference.kernels import LayerKernel, RankState, Shard, ShardLayer, encode_block, read_only, simd_path

Rows = NDArray[np.float32]
_RUN = b"r" * 16
_PLAN = b"p" * 16


class Turn(NamedTuple):
    """Processor seconds to pack and to unpack, and the packed size."""

    pack_s: float
    unpack_s: float
    packed_bytes: int


def cases(rows: int, samples: int) -> dict[str, Rows]:
    """Return rows of several kinds, rows x samples."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((rows, samples), np.float32)
    alive = np.maximum(normal, 0)
    return {
        "alive: half zero, all different": alive,
        "alive, one sample in twenty dead": alive * (rng.random(samples) < 0.95),
        "no zeros": np.abs(normal),
        "32 levels": np.clip(rng.integers(-40, 60, alive.shape), 0, 32).astype(np.float32),
        "each row 16 times": np.tile(alive[: rows // 16], (16, 1)),
        "one value, a tenth": (rng.random(alive.shape) < 0.1) * np.float32(32),
    }


def _copies(rows: int) -> LayerKernel:
    """Return a layer that copies positive rows."""
    return LayerKernel(
        read_only(np.arange(rows + 1, dtype=np.int64)),
        read_only(np.arange(rows, dtype=np.uint16)),
        read_only(np.ones(rows, np.float32)),
        rows,
        read_only(np.zeros(1, np.float32)),
        [(rows, "sum", "identity", [])],
        read_only(np.empty(0, np.float32)),
        True,
    )


class Ranks:
    """Two ranks: the first sends all rows of layer 0 to the second."""

    def __init__(self, x: Rows) -> None:
        self._x = x
        everything = np.arange(len(x), dtype=np.uint32)
        none = np.empty(0, np.uint32)
        whole, nothing = _copies(len(x)), _copies(0)
        idle = ShardLayer(nothing, none, none, none, [], [])
        sends = ShardLayer(whole, everything, everything * 0, everything, [], [((1,), everything)])
        receives = ShardLayer(whole, everything, everything * 0 + 1, everything, [(0, 0, len(x))], [])
        edges = [(0, 0, len(x))]
        self._shards = Shard(0, 2, [[], []]), Shard(1, 2, [[], edges])
        for shard, layers in zip(self._shards, ([sends, idle], [idle, receives]), strict=True):
            for index, layer in enumerate(layers):
                shard.add(index, layer)
        matrix = sparse.csr_array(x)
        self._input = encode_block(
            matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data, x.shape[1]
        )

    def turn(self, *, fast: bool) -> Turn:
        """Send the rows once, as over local sockets if `fast`."""
        source, target = (RankState(shard, _RUN, 0, _PLAN, [self._x.shape[1]], 1) for shard in self._shards)
        source.put_input(0, 0, self._input)
        for rank in (source, target):
            rank.assemble(0, 0)
            rank.compute(0, 0, "all")
        start = time.process_time()
        frames = source.frames(0, 0, 1 << 30, fast)
        packed = time.process_time()
        for _, body in frames:
            target.accept(body)
        target.assemble(1, 0)
        return Turn(packed - start, time.process_time() - packed, sum(len(body) for _, body in frames))


def _timed(pack: Callable[[], bytes], unpack: Callable[[bytes], object]) -> Turn:
    start = time.process_time()
    packed = pack()
    middle = time.process_time()
    unpack(packed)
    return Turn(middle - start, time.process_time() - middle, len(packed))


def with_numpy(x: Rows) -> Turn:
    """Pack a bitmap and the nonzeros, and unpack them."""

    def pack() -> bytes:
        mask: NDArray[np.bool_] = x != 0
        return b"".join([np.packbits(mask).tobytes(), x[mask].tobytes()])

    def unpack(packed: bytes) -> Rows:
        mask = np.unpackbits(np.frombuffer(packed, np.uint8, x.size // 8)).reshape(x.shape).astype(bool)
        found = np.zeros(x.shape, np.float32)
        found[mask] = np.frombuffer(packed, np.float32, offset=x.size // 8)
        return found

    return _timed(pack, unpack)


def with_blosc2(blosc2: Any, x: Rows) -> Turn:
    """Compress the rows with LZ4 after a bit shuffle, and decompress them."""
    raw = x.tobytes()
    settings = {"typesize": 4, "clevel": 1, "filter": blosc2.Filter.BITSHUFFLE, "codec": blosc2.Codec.LZ4}
    return _timed(lambda: bytes(blosc2.compress(raw, **settings)), blosc2.decompress)


def main() -> None:
    """Time all ways on all kinds of rows and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=2000, help="a multiple of 8")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    console = Console(width=110, emoji=False)
    ways: dict[str, Callable[[Rows, Ranks], Turn]] = {
        "ranks": lambda _, ranks: ranks.turn(fast=False),
        "ranks, local": lambda _, ranks: ranks.turn(fast=True),
        "NumPy": lambda x, _: with_numpy(x),
    }
    try:
        blosc2 = importlib.import_module("blosc2")
    except ImportError:
        console.print("SKIPPED: blosc2 is not installed; pip install blosc2 to have it in the table")
    else:
        blosc2.set_nthreads(1)
        ways["blosc2"] = lambda x, _: with_blosc2(blosc2, x)
    table = Table("rows", "way", "ratio", "pack, GB/s", "unpack, GB/s")
    for name, x in cases(options.rows, options.samples).items():
        ranks = Ranks(x)
        best: dict[str, Turn] = {}
        for _ in range(options.turns):
            for way, run in ways.items():
                turn = run(x, ranks)
                known = best.get(way, turn)
                best[way] = Turn(min(known[0], turn[0]), min(known[1], turn[1]), turn.packed_bytes)
        for way, turn in best.items():
            rates = (f"{x.nbytes / 1e9 / seconds:.2f}" for seconds in turn[:2])
            table.add_row(name, way, f"{x.nbytes / turn.packed_bytes:.2f}", *rates)
    console.print(
        f"{options.rows} rows x {options.samples} samples, kernels {simd_path()}, {os.cpu_count()} cores with a load "
        f"of {os.getloadavg()[0]:.1f} over the last minute"
    )
    console.print(table)


if __name__ == "__main__":
    main()
