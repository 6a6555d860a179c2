"""Random networks cut over ranks, and how to run them as state machines under virtual time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference import kernels
from fsd_inference.engine.gather import decode
from fsd_inference.engine.inputs import encode_input, read_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.results import joined_outputs, pack_blocks
from fsd_inference.engine.serial import serial_outputs, serial_state, state_rows
from fsd_inference.network import Activation, Layer, Network, RowGroup
from fsd_inference.network.activation import ACTIVATION_KINDS
from fsd_inference.partitioning import Partition, RankShard, exchange_plan, layer_parts
from fsd_inference.partitioning.kernel_shard import kernel_shard
from fsd_inference.store.memory import MemoryStore
from tests.support.reference import PARAMETERS, bounded_outputs
from tests.support.virtual import Inputs, Rank, VirtualRun


@dataclass(frozen=True)
class Case:
    """A network cut over P ranks, a batch, and how it is run."""

    network: Network
    partition: Partition
    x: NDArray[np.float32]
    micro_batches: int
    branching: int
    overlap: bool
    output: str
    limit: int
    seed: int

    def shards(self) -> list[tuple[RankShard, kernels.Shard]]:
        plan = exchange_plan(self.network, self.partition)
        parts = [list(layer_parts(layer, k, self.partition, plan)) for k, layer in enumerate(self.network)]
        shards = [
            RankShard(rank, self.partition.workers, self.network.widths[0], tuple(layer[rank] for layer in parts))
            for rank in range(self.partition.workers)
        ]
        return [(shard, kernel_shard(shard)) for shard in shards]

    def inputs(self) -> Inputs:
        sizes = micro_batch_sizes(len(self.x), self.micro_batches)
        store = MemoryStore()
        store.put("input", encode_input(serial_state(self.x), sizes))
        features = np.arange(self.x.shape[1], dtype=np.uint32)
        blocks = read_input(store, "input", features, sizes, self.x.shape[1])
        return Inputs(len(self.x), [(b.micro_batch, b.first_feature, b.payload) for b in blocks])

    def play(self, **more: object) -> VirtualRun:
        run = VirtualRun(
            self.shards(),
            self.inputs(),
            branching=self.branching,
            micro_batches=self.micro_batches,
            overlap=self.overlap,
            output=self.output,
            seed=self.seed,
            limit=self.limit,
            **more,  # type: ignore[arg-type]
        )
        run.run()
        return run

    def serial(self) -> NDArray[np.float32]:
        return serial_outputs(self.network, sparse.csr_array(self.x)).toarray()

    def exact(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the outputs in 64-bit, samples x neurons, and how far rounding can take those of float32 from them."""
        y, bound = self.x.astype(np.float64).T, np.zeros(self.x.shape[::-1])
        for layer in self.network:
            y, bound = bounded_outputs(layer, y, bound)
        return y.T, bound.T


def random_cut(rng: np.random.Generator, network: Network, workers: int) -> Partition:
    """Return a partition with each neuron on any rank."""
    return Partition(workers, tuple(rng.integers(0, workers, width).astype(np.int32) for width in network.widths[1:]))


def random_layer(rng: np.random.Generator, inputs: int, outputs: int) -> Layer:
    """Return a layer of any density, with up to four groups of rows."""
    mask = rng.random((outputs, inputs)) < rng.choice([0.1, 0.4, 0.9])
    values = np.full(mask.shape, 0.5) if rng.random() < 0.3 else rng.standard_normal(mask.shape)
    bias = rng.standard_normal(outputs if rng.random() < 0.5 else 1) * rng.choice([0.0, 0.3, 1.0])
    if rng.random() < 0.5:
        bias = -np.abs(bias)
    groups = []
    ends = np.unique([*rng.integers(1, outputs + 1, rng.integers(4)), outputs])
    for start, end in itertools.pairwise([0, *ends.tolist()]):
        # Half of all groups preserve zeros, as only those ever drop a sample.
        kind = ACTIVATION_KINDS[rng.integers(3 if rng.random() < 0.5 else len(ACTIVATION_KINDS))]
        is_max = rng.random() < 0.2
        if is_max:
            values[start:end] = 1
            mask[np.arange(start, end), rng.integers(0, inputs, end - start)] = True
        groups.append(RowGroup(end - start, Activation(kind, *PARAMETERS.get(kind, ())), "max" if is_max else "sum"))
    weights = sparse.csr_array((mask * values).astype(np.float32))
    return Layer(weights, bias.astype(np.float32), groups, slopes=rng.standard_normal(outputs).astype(np.float32))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = draw(st.lists(st.integers(1, 14), min_size=2, max_size=6))
    workers = draw(st.integers(1, 6))
    network = Network([random_layer(rng, *pair) for pair in itertools.pairwise(widths)])
    samples = draw(st.integers(1, 9))
    x = rng.standard_normal((samples, widths[0])) * (rng.random((samples, widths[0])) < 0.6)
    x[rng.random(samples) < 0.3] = 0
    return draw(schedules(network, random_cut(rng, network, workers), x.astype(np.float32)))


@st.composite
def schedules(draw: st.DrawFn, network: Network, partition: Partition, x: NDArray[np.float32]) -> Case:
    """Draw how a network is run."""
    return Case(
        network=network,
        partition=partition,
        x=x,
        micro_batches=draw(st.integers(1, 4)),
        branching=draw(st.integers(1, 4)),
        overlap=draw(st.booleans()),
        output=draw(st.sampled_from(["rows", "rows", "argmax"])),
        limit=draw(st.sampled_from([120, 200, 1 << 20])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def outputs(case: Case, ranks: list[Rank]) -> NDArray[np.float32]:
    sizes = micro_batch_sizes(len(case.x), case.micro_batches)
    results = [
        (pack_blocks(ended.outputs), case.partition.rows(len(case.network) - 1, rank))
        for rank, ended in enumerate(ranks)
    ]
    y = state_rows(joined_outputs(results, sizes, case.network.widths[-1]), "dense")
    assert isinstance(y, np.ndarray)
    return y


def check_answer(case: Case, run: VirtualRun) -> None:
    """Assert that all ranks ended well, with the bits of serial, within the bound of the exact outputs."""
    serial = case.serial()
    exact, bound = case.exact()
    assert (np.abs(serial - exact) <= bound).all()
    for ended in run.ranks:
        assert ended.finish is not None
        assert ended.finish.error is None, ended.finish.error
    for rank in range(1, len(run.ranks)):
        assert run.ranks[rank].starter == (rank - 1) // case.branching
    if case.output == "rows":
        assert outputs(case, run.ranks).tobytes() == serial.tobytes()
    else:
        assert run.ranks[0].finish is not None
        values, neurons = decode(run.ranks[0].finish.summary, len(case.x))
        assert neurons.tolist() == serial.argmax(axis=1).tolist()
        assert values.tolist() == serial.max(axis=1).tolist()
