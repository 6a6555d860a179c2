"""State machines under virtual time: any network, plan, order and fault gives the serial outputs or a typed error."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference import kernels
from fsd_inference.config import Clocks
from fsd_inference.engine.gather import decode
from fsd_inference.engine.inputs import encode_input, read_input
from fsd_inference.engine.messages import Compute, Phase, Send
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.results import output_triplets, pack_blocks
from fsd_inference.engine.serial import run_serial
from fsd_inference.errors import DeadlineError, NumericError, StallError, StartError
from fsd_inference.network import Activation, Layer, Network
from fsd_inference.partitioning import Partition, RankShard, exchange_plan, layer_parts
from fsd_inference.partitioning.kernel_shard import kernel_shard
from fsd_inference.store.memory import MemoryStore
from tests.support.reference import layer_output
from tests.support.virtual import Faults, Inputs, Rank, VirtualRun

ACTIVATIONS = (Activation("relu"), Activation("identity"), Activation("clipped_relu", 1.5), Activation("gelu"))


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
        store.put("input", encode_input(sparse.csr_array(self.x), sizes))
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
        layers = [kernels.LayerKernel(*layer.kernel_arrays()) for layer in self.network]
        rows = run_serial(layers, sparse.csr_array(self.x)).rows
        assert rows is not None
        return rows.toarray()

    def scipy(self) -> NDArray[np.float64]:
        y = self.x.astype(np.float64).T
        for layer in self.network:
            y = layer_output(layer, y)
        return y.T


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = draw(st.lists(st.integers(1, 14), min_size=2, max_size=6))
    workers = draw(st.integers(1, 6))
    layers = []
    for inputs, outputs in itertools.pairwise(widths):
        mask = rng.random((outputs, inputs)) < rng.choice([0.1, 0.4, 0.9])
        values = np.full(mask.shape, 0.5) if rng.random() < 0.3 else rng.standard_normal(mask.shape)
        bias = rng.standard_normal(outputs if rng.random() < 0.5 else 1) * rng.choice([0.0, 0.3, 1.0])
        if rng.random() < 0.5:
            bias = -np.abs(bias)
        weights = sparse.csr_array((mask * values).astype(np.float32))
        layers.append(Layer(weights, bias.astype(np.float32), ACTIVATIONS[rng.integers(3)]))
    samples = draw(st.integers(1, 9))
    x = rng.standard_normal((samples, widths[0])) * (rng.random((samples, widths[0])) < 0.6)
    x[rng.random(samples) < 0.3] = 0
    return Case(
        network=Network(layers),
        partition=Partition(workers, tuple(rng.integers(0, workers, width).astype(np.int32) for width in widths[1:])),
        x=x.astype(np.float32),
        micro_batches=draw(st.integers(1, 4)),
        branching=draw(st.integers(1, 4)),
        overlap=draw(st.booleans()),
        output=draw(st.sampled_from(["rows", "rows", "argmax"])),
        limit=draw(st.sampled_from([120, 200, 1 << 20])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def outputs(case: Case, ranks: list[Rank]) -> NDArray[np.float32]:
    sizes = micro_batch_sizes(len(case.x), case.micro_batches)
    y = np.zeros((len(case.x), case.network.widths[-1]), np.float32)
    for rank, ended in enumerate(ranks):
        rows = case.partition.rows(len(case.network) - 1, rank)
        samples, neurons, values = output_triplets(pack_blocks(ended.outputs), sizes, rows)
        y[samples, neurons] = values
    return y


def check_answer(case: Case, run: VirtualRun) -> None:
    serial = case.serial()
    np.testing.assert_allclose(serial, case.scipy(), rtol=2e-3, atol=2e-4)
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


@given(cases(), st.booleans())
@settings(max_examples=400, deadline=None)
def test_every_schedule_gives_the_serial_answer(case: Case, strays: bool) -> None:
    """Networks, partitions, trees, orders, repeats, corruption, and leftovers of an older attempt."""
    check_schedule(case, strays=strays)


@pytest.mark.long
@given(cases(), st.booleans())
@settings(max_examples=4000, deadline=None)
def test_thousands_of_schedules_give_the_serial_answer(case: Case, strays: bool) -> None:
    check_schedule(case, strays=strays)


def check_schedule(case: Case, *, strays: bool) -> None:
    leftovers: tuple[bytes, ...] = ()
    if strays:
        leftovers = tuple(case.play().sent)
    run = case.play(attempt=1, faults=Faults(duplicates=0.3, corrupted=0.1, strays=leftovers))
    check_answer(case, run)


@given(cases(), st.integers(0, 5), st.floats(0, 0.3))
@settings(max_examples=200, deadline=None)
def test_every_faulty_run_ends_by_its_deadline_in_an_answer_or_a_typed_error(
    case: Case, silent: int, lost: float
) -> None:
    clocks = Clocks(start_s=20, stall_s=30, run_s=400)
    dead = silent if 0 < silent < case.partition.workers else None
    run = case.play(clocks=clocks, faults=Faults(duplicates=0.2, silent=dead, lost=lost))
    errors = []
    for ended in run.ranks:
        if ended.finish is None:
            assert dead is not None  # it, or a rank between it and rank 0, was never started
            continue
        assert ended.finished_at <= clocks.run_s
        if ended.finish.error is not None:
            errors.append(ended.finish.error)
            assert isinstance(ended.finish.error, StartError | StallError | DeadlineError)
            assert ended.finish.error.retryable
    if not errors:
        check_answer(case, run)
    elif dead is not None:
        assert any(error.rank == dead or isinstance(error, StallError | DeadlineError) for error in errors)


@given(cases())
@settings(max_examples=50, deadline=None)
def test_an_overflow_ends_the_run_with_a_numeric_error_exactly_where_serial_has_one(case: Case) -> None:
    case.x[:] *= np.float32(3e37)
    try:
        case.serial()
        overflows = False
    except NumericError:
        overflows = True
    run = case.play()
    errors = [rank.finish.error for rank in run.ranks if rank.finish is not None and rank.finish.error is not None]
    assert bool(errors) == overflows
    for error in errors:
        assert isinstance(error, NumericError)
        assert error.layer is not None
        assert not error.retryable


def test_boundary_rows_leave_before_the_last_row_is_computed_and_micro_batches_fill_the_wait() -> None:
    """The order of actions, which the event log of a real run records too."""
    rng = np.random.default_rng(5)
    widths = [12, 12, 12, 12]
    layers = [
        Layer(
            sparse.csr_array((rng.random((12, 12)) < 0.15).astype(np.float32)), np.zeros(1, np.float32), ACTIVATIONS[0]
        )
        for _ in widths[1:]
    ]
    owners = tuple((np.arange(12) // 6).astype(np.int32) for _ in widths[1:])
    case = Case(Network(layers), Partition(2, owners), np.ones((8, 12), np.float32), 2, 1, True, "rows", 1 << 20, 3)
    run = case.play()
    check_answer(case, run)
    split = 0
    for rank in range(2):
        actions = [action for _, of, action in run.log if of == rank]
        for i, action in enumerate(actions):
            if isinstance(action, Compute) and action.phase is Phase.INTERIOR:
                assert isinstance(actions[i - 1], Send)
                split += 1
    assert split > 0
    waiting = [
        (step.layer, step.micro_batch)
        for _, of, action in run.log
        if of == 0 and isinstance(action, Compute) and action.phase is not Phase.INTERIOR
        for step in [action.step]
    ]
    assert (0, 1) in waiting[: waiting.index((1, 0)) + 1]
