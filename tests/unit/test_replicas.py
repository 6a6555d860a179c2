"""Replicas over slices of a batch: serial outputs bit for bit, and each failure named and retried separately."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.config import FailurePolicy, RunSettings
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import NumericError, SettingError, WorkerDiedError
from fsd_inference.forecast import predicting
from fsd_inference.launch.server import Server
from fsd_inference.network import Activation, Layer, Network
from fsd_inference.progress import Silent
from fsd_inference.report.figures import run_figures
from fsd_inference.session.distributed import Distributed
from fsd_inference.session.executor import Executor, LocalExecutor
from fsd_inference.session.platforms import ProcessPlatform
from fsd_inference.session.sharded_network import ShardedNetwork
from fsd_inference.session.slices import side_by_side, slices
from fsd_inference.usage import Usage
from tests.support.runs import same, serial

NETWORK = fsd.random_network([24, 40, 32, 16], connections=6, seed=3)
X = sparse.csr_array(np.random.default_rng(0).standard_normal((50, 24), np.float32))


@given(samples=st.integers(1, 300), replicas=st.integers(1, 400))
def test_slices_share_a_batch_evenly(samples: int, replicas: int) -> None:
    parts = slices(samples, replicas)
    assert len(parts) == min(samples, replicas)
    assert [sample for part in parts for sample in range(part.start, part.stop)] == list(range(samples))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None, max_examples=60)
@given(
    samples=st.integers(1, 50),
    replicas=st.integers(1, 60),
    threads=st.integers(1, 2),
    output=st.sampled_from(["rows", "argmax"]),
)
def test_replicas_answer_bit_for_bit(samples: int, replicas: int, threads: int, output: str) -> None:
    x = X[:samples]
    with (
        fsd.Session(NETWORK, replicas=replicas, tuning=fsd.Tuning(threads=threads), output=output) as together,
        fsd.Session(NETWORK, output=output) as alone,
    ):
        found, wanted = together.infer(x), alone.infer(x)
    if output == "rows":
        assert same(found.outputs, wanted.outputs)
    else:
        assert found.values is not None
        assert found.argmax is not None
        assert wanted.values is not None
        assert wanted.argmax is not None
        assert found.values.tobytes() == wanted.values.tobytes()
        assert found.argmax.tobytes() == wanted.argmax.tobytes()
    report = found.report
    assert (report.samples, report.replicas, report.workers) == (samples, min(samples, replicas), 1)
    assert len(report.ranks) == (report.replicas if report.replicas > 1 else 0)


def test_a_report_has_a_row_for_each_replica(tmp_path: Path) -> None:
    with fsd.Session(NETWORK, replicas=3) as session:
        report = session.infer(X).report
    report.save(tmp_path)
    assert fsd.Report.load(tmp_path) == report
    figures = run_figures(report)
    assert [rank.rank for rank in figures.ranks] == [0, 1, 2]
    assert all(rank.events for rank in figures.ranks)
    page = (tmp_path / "report.html").read_text()
    for said in ("serial, 3 replicas, 50 samples", "threads of one process", "seconds since replica 0 was started"):
        assert said in page
    assert "ranks" not in page.partition("</style>")[2].partition("<script")[0]


def overflowing() -> tuple[Network, sparse.csr_array]:
    """A network of one neuron that overflows for sample 7 of 10 alone."""
    layer = Layer(
        sparse.csr_array(np.full((1, 1), 1e30, np.float32)), np.zeros(1, np.float32), Activation("relu")
    )  # fmt: skip
    x = np.ones((10, 1), np.float32)
    x[7] = 1e30
    return Network([layer]), sparse.csr_array(x)


def test_what_overflows_is_named_with_its_replica() -> None:
    network, x = overflowing()
    with fsd.Session(network, replicas=4) as session, pytest.raises(NumericError) as caught:
        session.infer(x)
    assert str(caught.value).startswith("replica 2 of 4 (samples 6 to 7): ")
    assert (caught.value.rank, caught.value.layer) == (2, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"replicas": 0}, "replicas must be at least 1, not 0"),
        ({"replicas": 2, "channel": "queue"}, "cannot be combined with channel 'queue'"),
        ({"replicas": 2, "channel": "local"}, "cannot be combined with channel 'local'"),
        ({"replicas": 2, "workers": 4}, "2 of them cannot be combined with 4 workers"),
    ],
    ids=str,
)
def test_what_replicas_do_not_go_with(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        fsd.Session(NETWORK, **given)  # type: ignore[arg-type]


# --- replicas that are runs -------------------------------------------------------------------------------------------


class Flaky(LocalExecutor):
    """Carries out attempts over real processes; some fail all the same. `attempts` counts them by their samples."""

    def __init__(self, failing: Callable[[RunSpec], bool]) -> None:
        super().__init__(Server())
        self.failing = failing
        self.attempts: Counter[int] = Counter()

    def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
        self.attempts[spec.samples] += 1
        ended = super().attempt(spec, on_layer)
        one_put = Usage(Counter({"s3.put": 1}), Counter({"s3.put": 1}))  # a folder has no requests to count
        ended = replace(ended, reports=[replace(report, usage=one_put) for report in ended.reports])
        return replace(ended, error=WorkerDiedError("rank 0 died", rank=0)) if self.failing(spec) else ended


class FlakyPlatform(ProcessPlatform):
    """A session's ranks are processes of an executor that fails."""

    def __init__(self, source: ShardedNetwork, executor: Flaky) -> None:
        super().__init__("local", source, stack=None, progress=Silent())
        self.executor = executor

    def open(self) -> Executor:
        super().open().close()  # which cuts the network
        return self.executor


def replicated(executor: Flaky, replicas: int, attempts: int = 2) -> Distributed:
    source = ShardedNetwork(NETWORK, 1, "block")
    return Distributed(
        "serial",
        RunSettings(),
        FlakyPlatform(source, executor),
        replicas=replicas,
        failures=FailurePolicy(attempts=attempts),
        progress=Silent(),
    )


def test_a_replica_that_fails_is_tried_again_alone() -> None:
    x = X[:31]  # slices of 11, 10 and 10
    executor = Flaky(lambda spec: spec.samples == 11 and spec.attempt == 0)
    engine = replicated(executor, 3)
    answer = engine.infer(x)
    assert same(answer.outputs, serial(NETWORK, x))
    assert executor.attempts == {11: 2, 10: 2}  # the two of ten samples once each
    report = answer.report
    assert (report.attempts, report.replicas, report.samples, report.error) == (2, 3, 31, None)
    assert [rank.rank for rank in report.ranks] == [0, 1, 2]
    assert report.usage.requests == {"s3.put": 4}  # all attempts', the one that failed among them
    assert list(executor.runs.list("runs/")) == []
    engine.close()


def test_a_replica_that_fails_for_good_is_named_and_nothing_is_left() -> None:
    executor = Flaky(lambda spec: spec.samples == 11)
    engine = replicated(executor, 3, attempts=3)
    with pytest.raises(WorkerDiedError) as caught:
        engine.infer(X[:31])
    assert str(caught.value) == "replica 0 of 3 (samples 0 to 10): rank 0 died"
    assert (caught.value.rank, caught.value.retryable) == (0, True)
    assert executor.attempts == {11: 3, 10: 2}
    assert engine.report is not None
    assert engine.report.error is not None
    assert engine.report.error["message"] == str(caught.value)
    assert [rank.rank for rank in engine.report.ranks] == [0, 1, 2]  # the others' work is told all the same
    assert list(executor.runs.list("runs/")) == []
    engine.close()


def alarm() -> None:
    """Have SIGALRM sent in a while, when the main thread waits for others."""
    signal.setitimer(signal.ITIMER_REAL, 0.2)


def test_an_interrupt_stops_all_replicas() -> None:
    stopped, ended = threading.Event(), []
    all_run = threading.Barrier(4, action=alarm)

    def work(number: int) -> None:
        all_run.wait(30)
        assert stopped.wait(30)
        time.sleep(0.2 * (number == 0))  # that which the caller was waiting for ends last
        ended.append(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            side_by_side(work, 4, stopped.set)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert sorted(ended) == [0, 1, 2, 3]
    assert time.monotonic() - began < 20


def test_a_prediction_of_replicas_is_that_of_their_slices() -> None:
    """Over real processes: what was foreseen comes with the report, three functions and their coordinators."""
    executor = Flaky(lambda _: False)
    engine = replicated(executor, 3)
    foreseen = engine.predict(NETWORK, X[:31], None)
    report = engine.infer(X[:31], foreseen).report
    assert report.predicted == foreseen
    assert [function.invocations for function in foreseen.functions] == [3, 3]
    assert foreseen.wall_s is not None
    assert foreseen.functions[1].seconds == pytest.approx(3 * foreseen.wall_s, rel=0.2)
    engine.close()


def test_an_interrupt_gives_up_the_runs_of_all_replicas() -> None:
    """An executor that waits for a run until it is forgotten, as that of functions does."""

    class Endless(Flaky):
        def __init__(self) -> None:
            super().__init__(lambda _: False)
            self.followed: dict[str, threading.Event] = {}
            self.forgotten: Counter[str] = Counter()
            self.all_run = threading.Barrier(3, action=alarm)

        def attempt(self, spec: RunSpec, on_layer: Callable[[float], None]) -> Ended:
            self.all_run.wait(30)
            assert self.followed.setdefault(spec.run, threading.Event()).wait(30)
            raise WorkerDiedError("given up", rank=0)  # which would be tried again otherwise

        def forget(self, run: str) -> None:
            super().forget(run)
            self.forgotten[run] += 1
            self.followed.setdefault(run, threading.Event()).set()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    executor = Endless()
    engine = replicated(executor, 3)
    engine.prepare()
    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            engine.infer(X)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 20
    assert list(executor.forgotten.values()) == [2, 2, 2]  # by the interrupt, and by each replica at its end
    assert list(executor.runs.list("runs/")) == []
    engine.close()


def test_functions_are_warm_once_they_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the last run failed: that takes no function away."""
    seen: list[bool] = []

    def predict_runs(network: fsd.Network, carried: predicting.Carried, *_: object) -> fsd.Prediction:
        seen.append(carried.is_warm)
        return fsd.Prediction(Usage())

    monkeypatch.setattr(predicting, "predict_runs", predict_runs)
    failing: set[int] = set()
    engine = replicated(Flaky(lambda spec: spec.samples in failing), 1, attempts=1)
    batch = sparse.csr_array(X[:5])
    engine.predict(NETWORK, batch, None)
    engine.infer(batch)
    engine.predict(NETWORK, batch, None)
    failing.add(5)
    with pytest.raises(WorkerDiedError):
        engine.infer(batch)
    engine.predict(NETWORK, batch, None)
    engine.close()
    assert seen == [False, True, True]
