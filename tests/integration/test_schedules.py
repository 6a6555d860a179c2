"""State machines under virtual time: any network, plan, order and fault gives the serial outputs or a typed error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.ending import first_error
from fsd_inference.engine.messages import Compute, Phase, Send
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import DeadlineError, NumericError, StallError, StartError
from fsd_inference.network import Layer, Network, random_network
from fsd_inference.partitioning import Partition
from fsd_inference.rank_report import RankReport
from tests.support.schedules import Case, cases, check_answer, random_cut
from tests.support.virtual import Faults


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


@given(cases(), st.integers(0, 9), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_ten_runs_on_one_lane_are_right_whatever_messages_of_the_others_reappear(
    case: Case, failing: int, seed: int
) -> None:
    """As after runs that leave their lane without a purge; one of them loses frames, aborts and is repeated."""
    rng, left = np.random.default_rng(seed), list[bytes]()
    for number in range(10):
        it = replace(
            case, x=rng.permutation(case.x, axis=0) * np.float32(rng.choice([0.5, 1, 2])), seed=case.seed + number
        )
        attempt = 0
        if number == failing:
            left += it.play(run=bytes([number] * 16), faults=Faults(lost=0.3)).sent
            attempt = 1
        run = it.play(
            run=bytes([number] * 16), attempt=attempt, faults=Faults(duplicates=0.2, strays=tuple(left), stray=0.5)
        )
        check_answer(it, run)
        left += run.sent


@given(cases(), st.data())
@settings(max_examples=200, deadline=None)
def test_a_rank_that_stops_is_named(case: Case, data: st.DataObject) -> None:
    """Whenever it stops and whoever runs into the stall clock, which no rank exceeds that has what it needs."""
    workers = case.partition.workers
    stopped = data.draw(st.integers(0, workers - 1))
    run = case.play(faults=Faults(stops=(stopped, data.draw(st.floats(0, 40)))))
    told = [
        RankReport(rank, error=None if ended.finish.error is None else ended.finish.error.record(), position=position)
        for rank, ended in enumerate(run.ranks)
        if ended.finish is not None
        for position in [ended.worker.position()]
    ]
    if all(report.error is None for report in told):
        return  # the others had all they needed, and can tell nothing
    found = first_error(RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings(workers=workers)), told, [])
    assert isinstance(found, StallError)
    assert (found.rank, found.operation) == (stopped, "receive")
    assert all(ended.finished_at <= 60 + 60 + 40 for ended in run.ranks)


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


@given(cases(), st.floats(0.01, 0.3))
@settings(max_examples=100, deadline=None)
def test_where_lost_frames_are_asked_for_again_a_run_is_right_or_stalls(case: Case, lost: float) -> None:
    """A source may have ended, or dropped the frames, when it is asked."""
    run = case.play(faults=Faults(lost_answers=lost))
    errors = [rank.finish.error for rank in run.ranks if rank.finish is not None and rank.finish.error is not None]
    if not errors:
        check_answer(case, run)
    assert all(isinstance(error, StallError) for error in errors)


def test_most_runs_that_lose_frames_once_are_right() -> None:
    rng = np.random.default_rng(3)
    network = random_network([24] * 8, 6, seed=2)
    partition, batch = random_cut(rng, network, 4), rng.random((5, 24), np.float32)
    right = dict.fromkeys((False, True), 0)
    for seed in range(40):
        case = Case(network, partition, batch, 1, 2, overlap=True, output="rows", limit=1 << 20, seed=seed)
        for asks in right:
            run = case.play(faults=Faults(lost_answers=0.02) if asks else Faults(lost=0.02))
            if all(rank.finish is not None and rank.finish.error is None for rank in run.ranks):
                check_answer(case, run)
                right[asks] += 1
    assert right[False] < 20 < 28 < right[True]


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
        Layer(sparse.csr_array((rng.random((12, 12)) < 0.15).astype(np.float32)), np.zeros(1, np.float32))
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
