"""The worker state machine and the launch tree, without kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.config import Clocks
from fsd_inference.engine.gather import decode, encode, merge
from fsd_inference.engine.messages import (
    Abort,
    Arrived,
    ArrivedEdges,
    CheckChild,
    ChildChecked,
    ChildEnded,
    Compute,
    Computed,
    Failed,
    Finish,
    Load,
    Loaded,
    Phase,
    Restore,
    ResultStored,
    Send,
    SendGather,
    Sent,
    StartChild,
    Started,
    Step,
    StoreResult,
    Ticked,
)
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import Worker, abort_payload
from fsd_inference.errors import (
    AbortedError,
    DeadlineError,
    HandedOnError,
    NumericError,
    RunError,
    StallError,
    StartError,
    WorkerDiedError,
    run_error_from_record,
)
from fsd_inference.partitioning import RankPlan
from fsd_inference.rank_report import Position

CLOCKS = Clocks(start_s=10, stall_s=20, run_s=100)
# Two ranks, two layers; each sends two of its three rows of layer 0 to the other.
PLAN = RankPlan(0, 2, ((), ((1, 0),)), (((1,),), ()), (2, 0), (1, 3))


def worker(rank: int = 0, workers: int = 2, branching: int = 1, micro_batches: int = 1, overlap: bool = True) -> Worker:
    return Worker(
        rank=rank,
        tree=Tree(workers, branching),
        micro_batches=micro_batches,
        samples=4,
        overlap=overlap,
        clocks=CLOCKS,
        deadline=100.0,
    )


def data(source: int = 1, layer: int = 0, micro_batch: int = 0, edge: int = 0, complete: bool = True) -> Arrived:
    return Arrived(Kind.DATA, layer, micro_batch, source, edge, complete)


def test_an_attempt_from_a_checkpoint_sends_its_rows_and_waits_only_for_later_ones() -> None:
    everyone = ((1,),)
    plan = RankPlan(0, 2, ((), ((1, 0),), ((1, 0),), ((1, 0),)), (everyone, everyone, everyone, ()), (1,) * 4, (0,) * 4)
    me = Worker(
        rank=0, tree=Tree(2, 1), micro_batches=1, samples=4, overlap=True, clocks=CLOCKS, deadline=100.0, resume_at=2
    )
    me.handle(Started(), 0.0)
    assert me.handle(Loaded(plan, 2), 1.0) == [Restore(Step(1, 0))]
    assert me.handle(Computed(Step(1, 0), Phase.ALL), 2.0) == [Send(Step(1, 0))]
    assert me.expected() == []
    me.handle(data(layer=0), 3.0)  # of a layer that is done
    me.handle(Sent(Step(1, 0)), 3.0)
    assert me.expected() == [Expected(Kind.DATA, 1, 0, 1)]
    me.handle(Loaded(plan), 4.0)
    assert me.handle(data(layer=1), 5.0) == [Compute(Step(2, 0), Phase.ALL)]


def test_an_attempt_that_hands_on_ends_at_its_deadline_and_says_so() -> None:
    me = Worker(
        rank=0, tree=Tree(2, 1), micro_batches=1, samples=4, overlap=True, clocks=CLOCKS, deadline=5.0, hands_on=True
    )
    me.handle(Started(), 0.0)
    me.handle(Loaded(PLAN), 1.0)
    assert me.next_clock() == 5.0
    assert not any(isinstance(action, Finish) for action in me.handle(Ticked(), 4.9))
    abort, finish = me.handle(Ticked(), 5.0)
    assert isinstance(abort, Abort)
    assert isinstance(finish, Finish)
    assert isinstance(run_error_from_record(abort.error.record()), HandedOnError)
    assert finish.error is abort.error
    assert abort.error.retryable


@pytest.mark.parametrize("workers", range(1, 21))
@pytest.mark.parametrize("branching", range(1, 9))
def test_every_rank_is_started_once_by_its_parent(workers: int, branching: int) -> None:
    tree = Tree(workers, branching)
    starters: dict[int, int] = {}
    deepest, level = 1, [0]
    while level := [child for rank in level for child in tree.children(rank)]:
        deepest += 1
    for rank in range(workers):
        machine = worker(rank, workers, branching)
        started = [a.rank for a in machine.handle(Started(), 0.0) if isinstance(a, StartChild)]
        starters.update(dict.fromkeys(started, rank))
    assert starters == {rank: (rank - 1) // branching for rank in range(1, workers)}
    assert all(tree.parent(rank) == starter for rank, starter in starters.items())
    assert tree.parent(0) is None
    assert tree.depth == deepest


def test_children_start_before_the_shard_is_loaded() -> None:
    assert worker(workers=3, branching=2).handle(Started(), 0.0) == [StartChild(1), StartChild(2), Load()]


def test_boundary_rows_are_sent_while_the_others_are_computed() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    assert machine.handle(Loaded(PLAN), 1.0) == [Compute(Step(0, 0), Phase.BOUNDARY)]
    actions = machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    assert actions == [Send(Step(0, 0)), Compute(Step(0, 0), Phase.INTERIOR)]
    assert machine.expected() == []  # what others send is not looked for before the own is taken
    machine.handle(Sent(Step(0, 0)), 2.5)
    assert machine.expected() == [Expected(Kind.DATA, 0, 0, 1)]
    assert machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 3.0) == []
    assert machine.expected() == [Expected(Kind.DATA, 0, 0, 1)]
    assert machine.handle(data(), 4.0) == [Compute(Step(1, 0), Phase.ALL)]
    assert machine.handle(Computed(Step(1, 0), Phase.ALL), 5.0) == [StoreResult()]


def test_without_overlap_nothing_is_computed_while_frames_are_sent() -> None:
    machine = worker(micro_batches=2, overlap=False)
    machine.handle(Started(), 0.0)
    assert machine.handle(Loaded(PLAN), 1.0) == [Compute(Step(0, 0), Phase.ALL)]
    assert machine.handle(Computed(Step(0, 0), Phase.ALL), 2.0) == [Send(Step(0, 0))]
    assert machine.handle(data(), 3.0) == []
    assert machine.handle(Sent(Step(0, 0)), 4.0) == [Compute(Step(0, 1), Phase.ALL)]


def test_a_step_waits_until_its_edge_is_complete() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    machine.handle(data(complete=False), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    assert machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 2.0) == []
    assert machine.handle(data(), 3.0) == [Compute(Step(1, 0), Phase.ALL)]


def test_a_step_waits_until_its_layer_is_loaded() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    assert machine.handle(Loaded(PLAN, 1), 1.0) == [Compute(Step(0, 0), Phase.BOUNDARY)]
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    machine.handle(data(), 2.0)
    assert machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 3.0) == []
    assert machine.handle(Loaded(PLAN, 2), 4.0) == [Compute(Step(1, 0), Phase.ALL)]


def test_what_is_loaded_at_the_deadline_is_named() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN, 1), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 2.0)
    *_, finish = machine.handle(Ticked(), 1e9)
    assert isinstance(finish, Finish)
    assert "loading layer 1" in str(finish.error)


def test_edges_told_at_once_are_as_frames_one_by_one() -> None:
    plan = RankPlan(0, 3, ((), ((1, 0), (1, 1), (2, 0))), (((1,),), ()), (2, 0), (1, 3))
    one, other = worker(workers=3, branching=2), worker(workers=3, branching=2)
    for machine in (one, other):
        machine.handle(Started(), 0.0)
    one.handle(data(2), 0.5)  # before the plan is known
    other.handle(ArrivedEdges(0, 0, [(2, 0)]), 0.5)
    for machine in (one, other):
        machine.handle(Loaded(plan), 1.0)
        machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
        machine.handle(Sent(Step(0, 0)), 2.0)
        assert machine.expected() == [Expected(Kind.DATA, 0, 0, 1)]
        assert machine.wanted() == [Step(1, 0)]
    actions = [one.handle(data(edge=edge), 3.0) for edge in (0, 1)]
    assert other.handle(ArrivedEdges(0, 0, [(1, 0), (1, 1), (2, 0)]), 3.0) == []
    assert actions == [[], []]
    assert other.next_clock() == one.next_clock()
    for machine in (one, other):
        assert machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 4.0) == [Compute(Step(1, 0), Phase.ALL)]


def test_the_lowest_ready_step_goes_first() -> None:
    machine = worker(micro_batches=2)
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    machine.handle(data(micro_batch=0), 2.5)
    # Step (1, 0) is ready, but (0, 1) comes before it.
    assert machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 3.0) == [Compute(Step(0, 1), Phase.BOUNDARY)]


def test_gather_waits_for_children_and_sends() -> None:
    machine = worker(rank=1, workers=4, branching=2)
    plan = RankPlan(1, 4, ((),), ((),), (0,), (1,))
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(plan), 1.0)
    assert machine.handle(Computed(Step(0, 0), Phase.ALL), 2.0) == [StoreResult()]
    mine = encode((np.full(4, 1, np.float32), np.full(4, 5, np.int32)))
    theirs = encode((np.array([0, 1, 2, 1], np.float32), np.array([0, 3, 7, 6], np.int32)))
    assert machine.handle(ResultStored(mine), 3.0) == []
    assert machine.expected() == [Expected(Kind.GATHER, 1, 0, 3)]
    assert machine.handle(Arrived(Kind.GATHER, 1, 0, 3, 0, complete=False), 4.0) == []
    (action,) = machine.handle(Arrived(Kind.GATHER, 1, 0, 3, 0, complete=True, payload=theirs), 4.0)
    assert isinstance(action, SendGather)
    assert action.target == 0
    values, neurons = decode(action.summary, 4)
    assert values.tolist() == [1, 1, 2, 1]
    assert neurons.tolist() == [5, 3, 7, 5]
    assert machine.handle(Sent(), 5.0) == [Finish(None, action.summary)]


def test_a_child_without_a_claim_is_a_start_error() -> None:
    machine = worker(workers=3, branching=2)
    machine.handle(Started(), 0.0)
    assert machine.next_clock() == 10.0
    assert machine.handle(Ticked(), 10.0) == [CheckChild(1), CheckChild(2)]
    assert machine.handle(ChildChecked(1, claimed=True), 11.0) == []
    abort, finish = machine.handle(ChildChecked(2, claimed=False), 11.0)
    assert isinstance(abort, Abort)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, StartError)
    assert finish.error.rank == 2
    assert finish.error.retryable


def test_silence_is_a_stall_error_that_names_rank_and_layer() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 3.0)
    machine.handle(Ticked(), 10.0)
    assert machine.next_clock() == 23.0
    assert machine.handle(Ticked(), 22.9) == []
    _, finish = machine.handle(Ticked(), 23.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, StallError)
    assert (finish.error.rank, finish.error.layer, finish.error.operation) == (1, 0, "receive")


def test_a_child_that_sends_no_summary_is_a_stall_error() -> None:
    machine = worker(rank=1, workers=4, branching=2)
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(RankPlan(1, 4, ((),), ((),), (0,), (1,))), 1.0)
    machine.handle(Arrived(Kind.DATA, 0, 0, 3, 0, complete=False), 1.5)  # so that it is known to have started
    machine.handle(Computed(Step(0, 0), Phase.ALL), 2.0)
    assert machine.position() == Position("storing its result", 1, 0, ())
    machine.handle(ResultStored(b""), 3.0)
    assert machine.position() == Position("waiting for rank 3", 1, 0, (3,))
    assert machine.next_clock() == 23.0
    assert machine.handle(Ticked(), 22.9) == []
    _, finish = machine.handle(Ticked(), 23.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, StallError)
    assert (finish.error.rank, finish.error.layer, finish.error.operation) == (3, 0, "receive")
    assert "no summary from rank 3" in str(finish.error)


def test_the_position_says_what_holds_up_the_lowest_step() -> None:
    machine = worker(micro_batches=2)
    assert machine.position() == Position("loading its shard", 0, 0, ())
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN, 1), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    assert machine.position() == Position("computing layer 0", 0, 0, ())
    machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 2.0)
    machine.handle(Computed(Step(0, 1), Phase.BOUNDARY), 3.0)
    machine.handle(Computed(Step(0, 1), Phase.INTERIOR), 3.0)
    assert machine.position() == Position("loading layer 1", 1, 0, ())  # its own frames have not gone out either
    machine.handle(Loaded(PLAN), 4.0)
    assert machine.position() == Position("waiting for its sends to complete", 1, 0, ())
    machine.handle(Sent(Step(0, 0)), 5.0)
    assert machine.position() == Position("waiting for rank 1", 1, 0, (1,))
    machine.handle(data(micro_batch=1), 6.0)  # it computes that meanwhile, but the lower step is still held up
    assert machine.position() == Position("waiting for rank 1", 1, 0, (1,))
    machine.handle(data(micro_batch=0), 7.0)
    assert machine.position() == Position("computing layer 1", 1, 0, ())


def test_a_part_that_came_resets_the_stall_clock() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    machine.handle(Computed(Step(0, 0), Phase.BOUNDARY), 2.0)
    machine.handle(Computed(Step(0, 0), Phase.INTERIOR), 3.0)
    machine.handle(data(complete=False), 15.0)
    assert machine.next_clock() == 35.0


def test_the_deadline_ends_a_run_whatever_it_waits_for() -> None:
    machine = worker(workers=1)
    machine.handle(Started(), 0.0)
    assert machine.next_clock() == 100.0
    _, finish = machine.handle(Ticked(), 100.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, DeadlineError)
    assert "loading its shard" in str(finish.error)
    assert machine.handle(Ticked(), 101.0) == []


def test_an_abort_ends_the_rank_with_the_error_of_the_one_that_failed() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    error = NumericError("layer 3, neuron 5: overflow", rank=1, layer=3, operation="compute")
    (finish,) = machine.handle(Arrived(Kind.ABORT, 0, 0, 1, 0, complete=True, payload=abort_payload(error)), 2.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, NumericError)
    assert finish.error.record() == error.record()
    assert machine.finished
    assert machine.expected() == []


def test_an_unreadable_abort_still_ends_the_rank() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    (finish,) = machine.handle(Arrived(Kind.ABORT, 0, 0, 1, 0, complete=True, payload=b"\xff"), 2.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, RunError)


def test_a_child_that_died_ends_the_run_at_once() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    abort, finish = machine.handle(ChildEnded(1, "killed by signal 9", reported=False), 1.0)
    assert isinstance(abort, Abort)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, WorkerDiedError)
    assert finish.error.rank == 1


def test_a_child_that_reported_its_error_gets_time_for_the_abort_to_come() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    assert machine.handle(ChildEnded(1, "exit code 3", reported=True), 1.0) == []
    assert machine.next_clock() == 3.0
    _, finish = machine.handle(Ticked(), 3.0)
    assert isinstance(finish, Finish)
    assert isinstance(finish.error, WorkerDiedError)


def test_a_rank_that_waits_for_an_abort_looks_for_it_even_if_it_expects_nothing_else() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    assert machine.expected() == []
    machine.handle(ChildEnded(1, "exit code 3", reported=True), 1.0)
    assert machine.expected() == [Expected(Kind.ABORT, 0, 0, 0)]


def test_a_failure_of_its_own_is_told_to_all() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    error = RunError("rank 0, load: no such shard", rank=0, operation="load")
    assert machine.handle(Failed(error), 1.0) == [Abort(error), Finish(error)]


def test_the_end_of_another_rank_waits_for_the_abort_that_explains_it() -> None:
    gone = RunError("rank 0, layer 0, send: rank 1 is gone", rank=0, layer=0, operation="send")
    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    assert machine.handle(Failed(gone, secondary=True), 1.0) == []
    assert machine.handle(Failed(RunError("later"), secondary=True), 1.5) == []
    cause = NumericError("layer 0, neuron 3: inf", rank=1, layer=0, operation="compute")
    told = Arrived(Kind.ABORT, 0, 0, 1, 0, complete=True, payload=abort_payload(cause))
    assert [type(action) for action in machine.handle(told, 2.0)] == [Finish]

    machine = worker()
    machine.handle(Started(), 0.0)
    machine.handle(Loaded(PLAN), 1.0)
    machine.handle(Failed(gone, secondary=True), 1.0)
    assert machine.next_clock() == 3.0
    assert machine.handle(Ticked(), 3.0) == [Abort(gone), Finish(gone)]


def test_a_rank_whose_starter_is_gone_leaves_the_telling_to_those_who_know_why() -> None:
    machine = worker()
    machine.handle(Started(), 0.0)
    error = AbortedError("the process that started rank 0 is gone")
    assert machine.handle(Failed(error), 1.0) == [Finish(error)]


@given(st.integers(1, 200), st.integers(1, 50))
def test_micro_batches_are_nearly_equal_and_never_empty(samples: int, micro_batches: int) -> None:
    sizes = micro_batch_sizes(samples, micro_batches)
    assert sum(sizes) == samples
    assert len(sizes) == min(samples, micro_batches)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 5))
def test_merged_summaries_are_the_argmax_of_all_neurons(seed: int, ranks: int, samples: int) -> None:
    rng = np.random.default_rng(seed)
    neurons = 7
    outputs = rng.integers(-2, 3, (samples, neurons)).astype(np.float32)
    owners = rng.integers(0, ranks, neurons)
    parts = []
    for rank in range(ranks):
        own = np.flatnonzero(owners == rank)
        if own.size:
            best = outputs[:, own].argmax(axis=1)
            parts.append((outputs[:, own].max(axis=1), own[best].astype(np.int32)))
        else:
            parts.append((np.full(samples, -np.inf, np.float32), np.full(samples, -1, np.int32)))
    rng.shuffle(parts)
    values, chosen = merge(parts)
    assert chosen.tolist() == outputs.argmax(axis=1).tolist()
    assert values.tolist() == outputs.max(axis=1).tolist()


def test_errors_survive_their_record() -> None:
    for error in (
        StallError("no frame", rank=3, layer=4, operation="receive"),
        RunError("something", retryable=True),
    ):
        again = run_error_from_record(error.record())
        assert type(again) is type(error)
        assert again.record() == error.record()
