"""Runs that fail and go on from their checkpoints: the same bits, over all channels, and no layer computed twice."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.processes import ranks_of
from fsd_inference.config import WIRES, Clocks, RunSettings
from fsd_inference.cost.metered import function_times
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import DeadlineError, HandedOnError, RunError, StragglerError
from fsd_inference.forecast import handing_on
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.course import Attempt, Course
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.launch import attempt as launch_attempt
from fsd_inference.launch.watching import RankWatch
from fsd_inference.session.distributed import Distributed
from fsd_inference.session.executor import Executor
from fsd_inference.stragglers import Lag
from tests.support.processes import wait_until
from tests.support.runs import same, serial, session

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]

WORKERS, LAYERS, EVERY = 3, 12, 5
NETWORK = fsd.random_network([96] * (LAYERS + 1), connections=8, seed=5)
X = np.random.default_rng(0).random((40, 96), np.float32)


@pytest.fixture(scope="module")
def expected() -> sparse.csr_array:
    return serial(NETWORK, X)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    with temporary_stack(StackSettings(name="fsd-checkpoints", ranks=WORKERS, purge_settle_s=0.0)) as made:
        save_stack(made, path)
        yield path


def executor_of(distributed: fsd.Session) -> Executor:
    engine = distributed._engine
    assert isinstance(engine, Distributed)
    return engine._prepared()[0]


def fail_after(
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
    attempts: int,
    between: Callable[[RunSpec], None] = lambda _: None,
) -> list[int]:
    """Have the first attempts count as failed once they have ended; return a list of where each attempt starts."""
    attempt, starts = executor.attempt, list[int]()

    def failing(spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        starts.append(spec.resume_at)
        ended = attempt(spec, on_layer)
        if ended.error is not None or len(starts) > attempts:
            return ended
        between(spec)
        return replace(ended, error=RunError("the answer was lost", retryable=True))

    monkeypatch.setattr(executor, "attempt", failing)
    return starts


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("channel", ["local", "queue", "object"])
def test_another_attempt_computes_only_what_is_left(
    channel: str, micro_batches: int, stack: Path, expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"workers": WORKERS, "micro_batches": micro_batches, "checkpoint_every": EVERY}
    with session(NETWORK, channel, stack, **options) as distributed:
        executor = executor_of(distributed)
        starts = fail_after(executor, monkeypatch, 1)
        answer = distributed.infer(X, outputs="csr")
        assert list(executor.runs.list("runs/")) == []  # with the checkpoints
    assert starts == [0, 10]
    assert same(answer.outputs, expected)
    assert (answer.report.attempts, answer.report.resumed_at) == (2, 10)
    for rank in answer.report.ranks:
        computed = [layer.compute_s > 0 for layer in rank.layers]
        assert computed == [False] * 10 + [True] * 2
        # Those of layer 9 are sent again.
        assert [layer.frames > 0 for layer in rank.layers] == [False] * 9 + [True] * 2 + [False]
        assert not any(layer.requests for layer in rank.layers[:9])


def combination(channel: str, wire: str, every: int, verify: bool) -> Any:
    """Return the parameters of a test, which is long if others make do: over AWS one of each number format."""
    is_short = verify and (channel == "local" or every == 1 + WIRES.index(wire))
    return pytest.param(channel, wire, every, verify, marks=[] if is_short else [pytest.mark.long])


@functools.cache
def whole_run(wire: str) -> fsd.Inference:
    """Return what a run gives that has no checkpoints and does not fail."""
    with session(NETWORK, "local", workers=WORKERS, wire=wire, verify=True) as distributed:
        return distributed.infer(X, outputs="csr")


@pytest.mark.parametrize(
    ("channel", "wire", "every", "verify"),
    [
        combination(*options)
        for options in itertools.product(["local", "queue", "object"], WIRES, [1, 2, 3], [False, True])
    ],
)
def test_a_resumed_run_has_the_bits_and_digests_of_one_that_was_not(
    channel: str, wire: str, every: int, verify: bool, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(
        NETWORK,
        channel,
        stack,
        workers=WORKERS,
        micro_batches=2,
        wire=wire,
        verify=verify,
        checkpoint_every=every,
    ) as distributed:
        starts = stop_at(executor_of(distributed), monkeypatch, [7, 10])
        answer = distributed.infer(X, outputs="csr")
    assert [layer for layer, _ in starts] == [0, 7 // every * every, 10 // every * every]
    assert same(answer.outputs, whole_run(wire).outputs)
    assert answer.report.digests == (whole_run(wire).report.digests if verify else None)


def test_digests_of_a_resumed_run_are_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with session(NETWORK, "local", workers=WORKERS, verify=True, checkpoint_every=EVERY) as distributed:
        stop_at(executor_of(distributed), monkeypatch, [5, 10])
        found = distributed.infer(X).report.digests
    with fsd.Session(NETWORK, verify=True) as alone:
        wanted = alone.infer(X).report.digests
    assert found is not None
    assert wanted is not None
    assert (found.network, found.batch, found.layers) == (wanted.network, wanted.batch, wanted.layers)


def test_checkpoints_are_predicted_counted_and_shown(stack: Path, tmp_path: Path) -> None:
    counts = {}
    for every in (0, 2):
        with session(NETWORK, "object", stack, workers=WORKERS, checkpoint_every=every) as distributed:
            predicted = distributed.predict(X)
            report = distributed.infer(X, predicted=predicted).report
        assert predicted is not None
        assert (predicted.checkpoint_every, predicted.attempts) == (every, 1)
        stored_bytes = sum(rank.checkpoint_bytes for rank in report.ranks)
        assert predicted.checkpoint_bytes == pytest.approx(stored_bytes, rel=0.1)
        for kind in ("s3.put", "s3.list"):
            assert predicted.usage.requests[kind] == report.usage.requests[kind]
        counts[every] = report.usage.requests["s3.put"]
        assert [rank.checkpoints for rank in report.ranks] == [(LAYERS - 1) // 2 if every else 0] * WORKERS
        report.save(tmp_path / str(every))
        page = " ".join((tmp_path / str(every) / "report.html").read_text().split())
        assert ("15 checkpoints of" in page) == (every == 2)
    assert counts[2] - counts[0] == WORKERS * 5


@pytest.mark.parametrize(("failure_s", "is_stored"), [(1.8e6, False), (0.01, True)])
def test_a_prediction_chooses_the_checkpoints_of_a_run(
    failure_s: float, is_stored: bool, expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a second wants none, unless functions fail all the time."""
    monkeypatch.setattr(handing_on, "FAILURE_S", failure_s)
    with session(NETWORK, "local", workers=WORKERS, checkpoint_every="auto", restart_stragglers=True) as distributed:
        predicted = distributed.predict(X)
        answer = distributed.infer(X, outputs="csr")
        given = distributed.infer(X, predicted=predicted)
    assert predicted is not None
    every = predicted.checkpoint_every
    assert (every > 0) == is_stored
    count = (LAYERS - 1) // every if is_stored else 0
    for report in (answer.report, given.report):
        assert report.predicted is not None
        assert report.predicted.checkpoint_every == every
        assert [rank.checkpoints for rank in report.ranks] == [count] * WORKERS
    assert same(answer.outputs, expected)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_counts_of_a_run_that_is_handed_on_are_predicted(
    channel: str, stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(NETWORK, channel, stack, workers=WORKERS, checkpoint_every=2, attempts=1) as distributed:
        engine = distributed._engine
        assert isinstance(engine, Distributed)
        executor, stored = engine._prepared()
        starts = stop_at(executor, monkeypatch, [3, 9])
        usage = distributed.infer(X).report.usage
    assert [layer for layer, _ in starts] == [0, 2, 8]
    (payloads,) = sample_payloads(NETWORK, [stored.plan], sparse.csr_array(X), samples=len(X))
    # Each attempt has computed all layers when it is taken to have ended earlier.
    course = Course(LAYERS, 2, tuple(Attempt(first, LAYERS) for first in (0, 2, 8)))
    settings = RunSettings(workers=WORKERS, checkpoint_every=2)
    found = count_usage(stored.plan, payloads, settings, channel, purged=WORKERS, course=course)
    gathers = 2 * (WORKERS - 1)  # of the attempts that in truth were not stopped
    results = 2 * WORKERS
    lists = 2  # of the test itself
    more = {"s3.put": results + gathers * (channel == "object"), "s3.list": lists, "sns.publish": gathers}
    for kind in ("s3.put", "s3.list", "sns.publish", "sqs.purge"):
        assert usage.requests[kind] == found.requests[kind] + more.get(kind, 0) * (found.requests[kind] > 0), kind
    assert usage.frames == found.frames + gathers


@pytest.mark.parametrize("channel", ["local", "object"])
def test_a_damaged_checkpoint_leads_to_an_earlier_one_and_then_to_the_input(
    channel: str, stack: Path, expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(NETWORK, channel, stack, workers=WORKERS, checkpoint_every=EVERY) as distributed:
        executor = executor_of(distributed)

        def harm(spec: RunSpec) -> None:
            key, other = spec.checkpoint_key(10, 1), spec.checkpoint_key(5, 2)
            data = executor.runs.get(key) or b""
            executor.runs.put(key, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
            executor.runs.put(other, b"something else")

        starts = fail_after(executor, monkeypatch, 1, harm)
        answer = distributed.infer(X, outputs="csr")
    # The attempts that found no usable checkpoint do not count: two attempts are allowed.
    assert starts == [0, 10, 5, 0]
    assert same(answer.outputs, expected)


def stop_at(
    executor: Executor,
    monkeypatch: pytest.MonkeyPatch,
    stops: list[int],
    lasted_s: float = 0.0,
    kind: type[RunError] = HandedOnError,
) -> list[tuple[int, float]]:
    """Have attempts reach the limit of their functions at these layers; return where each starts, and its run clock.

    They then have lasted `lasted_s` seconds more than they did. With another `kind` of error they end because of that.
    """
    attempt, starts = executor.attempt, list[tuple[int, float]]()

    def stopping(spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        stop = stops[len(starts)] if len(starts) < len(stops) else None
        starts.append((spec.resume_at, spec.settings.clocks.run_s))
        ended = attempt(spec, on_layer)
        if stop is None:
            return ended
        later = [
            info.key for info in executor.runs.list(spec.checkpoints_prefix) if int(info.key.split("/")[-2]) > stop
        ]
        executor.runs.delete(later)
        return replace(ended, launched=ended.launched - lasted_s, error=kind("near its limit"))

    monkeypatch.setattr(executor, "attempt", stopping)
    return starts


def test_handing_on_does_not_count_while_the_run_advances(
    expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(NETWORK, "local", workers=WORKERS, checkpoint_every=2, attempts=1) as distributed:
        starts = stop_at(executor_of(distributed), monkeypatch, [3, 5, 9])
        answer = distributed.infer(X, outputs="csr")
    assert same(answer.outputs, expected)
    assert [layer for layer, _ in starts] == [0, 2, 4, 8]
    clocks = [run_s for _, run_s in starts]
    assert clocks == sorted(clocks, reverse=True)
    assert clocks[0] == 900.0
    assert clocks[3] <= 900.0 - answer.report.ranks[0].ended + answer.report.ranks[0].started  # type: ignore[operator]
    # The bill is that of all attempts.
    assert answer.report.earlier.workers == 3 * WORKERS
    workers, _ = function_times(answer.report)
    assert workers.invocations == 4 * WORKERS
    assert workers.seconds > answer.report.earlier.workers_s > 0


def test_few_attempts_end_because_of_stragglers_and_none_counts(
    expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(
        NETWORK, "local", workers=WORKERS, checkpoint_every=2, attempts=1, restart_stragglers=True
    ) as distributed:
        executor, may_restart = executor_of(distributed), list[bool]()
        attempt = executor.attempt

        def noting(spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
            may_restart.append(spec.settings.restart_stragglers)
            return attempt(spec, on_layer)

        monkeypatch.setattr(executor, "attempt", noting)
        starts = stop_at(executor, monkeypatch, [3, 5, 5], kind=StragglerError)
        answer = distributed.infer(X, outputs="csr")
    assert same(answer.outputs, expected)
    assert [layer for layer, _ in starts] == [0, 2, 4, 4]
    assert may_restart == [True, True, True, False]
    assert [error["type"] for error in answer.report.earlier_errors] == ["StragglerError"] * 3
    assert fsd.Report.from_json(answer.report.to_json()).earlier_errors == answer.report.earlier_errors


@pytest.mark.parametrize("channel", ["local", "queue"])
def test_an_attempt_ends_by_itself_once_a_checkpoint_makes_up_for_its_straggler(
    channel: str, stack: Path, expected: sparse.csr_array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks report before they end, and so are billed."""
    looks = list[float]()

    def slow(_: RankWatch) -> tuple[Lag, float] | None:
        looks.append(0.0)
        return Lag(1, 5.0, 0, 3, LAYERS, 1000.0, 0.0), 0.0

    monkeypatch.setattr(launch_attempt, "SLOW_S", 0.1)
    monkeypatch.setattr(RankWatch, "straggler", slow)
    options = {"workers": WORKERS, "checkpoint_every": 2, "delay_s": 0.3, "attempts": 1}
    with session(NETWORK, channel, stack, restart_stragglers=True, **options) as distributed:
        answer = distributed.infer(X, outputs="csr")
    assert same(answer.outputs, expected)
    report = answer.report
    assert len(looks) >= 2  # there was no checkpoint at first
    assert report.attempts >= 2
    assert report.resumed_at >= 2
    assert {error["type"] for error in report.earlier_errors} == {"StragglerError"}
    assert report.earlier.workers == WORKERS * (report.attempts - 1)


def test_a_run_that_does_not_advance_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with session(NETWORK, "local", workers=WORKERS, checkpoint_every=2, attempts=2) as distributed:
        starts = stop_at(executor_of(distributed), monkeypatch, [4, 5, 5, 5])
        with pytest.raises(HandedOnError):
            distributed.infer(X)
    assert [layer for layer, _ in starts] == [0, 4, 4]


def test_the_run_clock_is_that_of_the_whole_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(run_s=45.0)
    with session(NETWORK, "local", workers=WORKERS, checkpoint_every=2, clocks=clocks) as distributed:
        starts = stop_at(executor_of(distributed), monkeypatch, [2, 4], lasted_s=25.0)
        with pytest.raises(DeadlineError, match=r"the run did not end by its deadline \(45 s\)"):
            distributed.infer(X)
    assert [layer for layer, _ in starts] == [0, 2]


@pytest.mark.parametrize("channel", ["local", pytest.param("queue", marks=pytest.mark.long), "object"])
def test_a_rank_that_is_killed_after_a_checkpoint(channel: str, stack: Path, expected: sparse.csr_array) -> None:
    options = {"workers": WORKERS, "checkpoint_every": 2, "delay_s": 0.2, "branching": 1}
    with session(NETWORK, channel, stack, **options) as distributed:
        runs = executor_of(distributed).runs

        def kill() -> None:
            def is_stored() -> bool:
                return sum("/00004/" in info.key for info in runs.list("runs/")) == WORKERS

            wait_until(is_stored, "all ranks have stored a checkpoint", 60)
            os.kill(ranks_of(os.getpid())[1], signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        answer = distributed.infer(X, outputs="csr")
        killer.join()
    assert same(answer.outputs, expected)
    assert answer.report.attempts == 2
    assert answer.report.resumed_at >= 4
