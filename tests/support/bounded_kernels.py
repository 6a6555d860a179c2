"""A process that makes one use of the kernels, named by its argument, with little memory, and prints its outcome."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fsd_inference.kernels import LayerKernel, RankState, SerialState, Shard, ShardLayer, encode_block

_MORE_BYTES = 100_000_000
_MANY = 20_000_000


def _layer(columns: int, connections: int, *, rows: int = 1, bias: float = 0.0) -> LayerKernel:
    """Return rows of which the first adds up its first inputs, and the others have none."""
    indptr, indices = np.array([0] + [connections] * rows, np.int64), np.arange(connections, dtype=np.uint32)
    one, biases, slopes = np.ones(1, np.float32), np.full(1, bias, np.float32), np.zeros(0, np.float32)
    for array in (indptr, indices, one, biases, slopes):
        array.setflags(write=False)
    return LayerKernel(indptr, indices, one, columns, biases, [(rows, "sum", "relu", [])], slopes, bias == 0)


def _zeros() -> SerialState:
    """Return many samples without values."""
    nothing = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return SerialState(np.zeros(_MANY + 1, np.int64), *nothing, features=1, threads=1)


def _result() -> Callable[[], object]:
    return _zeros().result


def _reduce() -> Callable[[], object]:
    return _zeros().reduce


def _apply() -> Callable[[], object]:
    state, layer = _zeros(), _layer(1, 1, rows=5000, bias=1.0)
    return lambda: state.apply([layer])


def _blocks() -> Callable[[], object]:
    block = encode_block(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), 64)
    return lambda: SerialState.from_blocks(64, _MANY, [(block, 0, 64, np.zeros(1, np.uint32))], 1)


def _shard() -> Callable[[], object]:
    layer, columns = _layer(_MANY, 1), np.zeros(_MANY, np.uint32)
    return lambda: ShardLayer(layer, np.zeros(1, np.uint32), columns, columns, [], [])


def _ranks(bias: float) -> tuple[RankState, RankState]:
    """Return two states of a rank with many samples, of which one has a value; the second has no input yet."""
    shard, column = Shard(0, 1, [[]]), np.zeros(1, np.uint32)
    shard.add(0, ShardLayer(_layer(1, 1, bias=bias), column, column, column, [], []))
    one, other = (RankState(shard, bytes(16), 1, bytes(16), [10 * _MANY], 1) for _ in range(2))
    one.put_input(0, 0, encode_block(np.array([0, 1]), np.zeros(1, np.int32), np.ones(1, np.float32), 10 * _MANY))
    return one, other


def _rank() -> Callable[[], object]:
    rank, _ = _ranks(bias=1.0)
    return lambda: rank.assemble(0, 0)


def _restore() -> Callable[[], object]:
    rank, resumed = _ranks(bias=0.0)
    rank.assemble(0, 0)
    rank.compute(0, 0, "all")
    rows = rank.rows(0, 0)
    return lambda: resumed.restore(0, 0, rows)


def _second_layout() -> Callable[[], object]:
    """Return a product for which a layout of sixteen times the weights is tried."""
    count = _MANY // 4
    layer, x = _layer(count, count), np.ones((1, count), np.float32)
    x.setflags(write=False)

    def multiply() -> float:
        for _ in range(10):
            state = SerialState.from_dense(x, 1)
            state.apply([layer])
        return float(state.result()[2][0])

    return multiply


USES = {
    use.__name__.removeprefix("_"): use
    for use in (_result, _reduce, _apply, _blocks, _shard, _rank, _restore, _second_layout)
}


def main() -> None:
    use = USES[sys.argv[1]]()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        sys.stdout.write(str(use()))
    except MemoryError as error:
        sys.stdout.write(f"MemoryError: {error}")


if __name__ == "__main__":
    main()
