"""One session used by several threads, and by a caller that changes its working directory."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fsd_inference import Inference, Network, Session, partition, random_network
from tests.support.runs import dense

NETWORK = random_network([40, 32, 24], connections=6, seed=5)
THREADS = 4


def batch(number: int) -> NDArray[np.float32]:
    """Return another batch, of another size, for each number."""
    return (np.random.default_rng(number).random((3 + number, 40)) < 0.4).astype(np.float32)


def expected(number: int) -> NDArray[np.float32]:
    values = batch(number)
    for layer in NETWORK:
        values = np.maximum(values @ layer.weights.toarray().T + layer.bias, 0).astype(np.float32)
    return values


def rows(answer: object) -> NDArray[np.float32]:
    assert isinstance(answer, Inference)
    return dense(answer.outputs)


def together(calls: Sequence[Callable[[], object]]) -> list[object]:
    barrier = threading.Barrier(len(calls))

    def call(number: int) -> object:
        barrier.wait(10)
        return calls[number]()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, range(len(calls))))


@pytest.mark.parametrize(
    ("channel", "workers"),
    [
        ("serial", 1),
        ("local", 2),
        pytest.param("queue", 2, marks=pytest.mark.emulator),
        pytest.param("object", 2, marks=pytest.mark.emulator),
    ],
)
def test_first_calls_of_several_threads(channel: str, workers: int) -> None:
    """Each gets the answer to its own batch; what was asked for is told of each run alone."""
    with Session(NETWORK, channel=channel, workers=workers) as session:
        answers = together([lambda n=n: session.infer(batch(n)) for n in range(THREADS)])  # type: ignore[misc]
        alone = session.infer(batch(0)).report
    for number, answer in enumerate(answers):
        np.testing.assert_allclose(rows(answer), expected(number), rtol=1e-5, atol=1e-6)
        assert answer.report.samples == 3 + number  # type: ignore[attr-defined]
    for kind in ("s3.put", "sns.publish"):  # which no timing decides
        counts = {answer.report.usage.requests.get(kind, 0) for answer in answers}  # type: ignore[attr-defined]
        assert len(counts - {alone.usage.requests.get(kind, 0)}) <= 1  # the first one uploads the network


def test_prepare_and_predict_beside_infer() -> None:
    with Session(NETWORK, channel="local", workers=2) as session:
        calls = [session.prepare, session.prepare, lambda: session.predict(batch(1)), lambda: session.infer(batch(1))]
        *_, predicted, answer = together(calls)
    assert predicted is not None
    np.testing.assert_allclose(rows(answer), expected(1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channel", ["serial", "local"])
def test_relative_paths_outlive_a_change_of_folder(
    channel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    NETWORK.save("net")
    shards = "net"
    if channel == "local":
        partition(Network.load("net"), "shards", workers=2, method="graph")
        shards = "shards"
    (tmp_path / "elsewhere").mkdir()
    with Session(shards, channel=channel) as session:
        os.chdir("elsewhere")
        first = rows(session.infer(batch(2)))
        os.chdir("..")
        os.chdir("elsewhere")
        np.testing.assert_array_equal(rows(session.infer(batch(2))), first)
    np.testing.assert_allclose(first, expected(2), rtol=1e-5, atol=1e-6)


def test_the_time_of_a_run_does_not_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is set back by an hour during the run."""
    import time  # noqa: PLC0415

    true_time, calls = time.time, [0]

    def set_back() -> float:
        calls[0] += 1
        return true_time() - (3600 if calls[0] > 4 else 0)

    with Session(NETWORK, channel="local", workers=2) as session:
        session.prepare()
        monkeypatch.setattr(time, "time", set_back)
        assert 0 < session.infer(batch(3)).report.wall_s < 60
