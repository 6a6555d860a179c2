"""Ranks that are suspended in real runs: each is named at about the stall clock, and nothing of the run stays."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.processes import ranks_of
from fsd_inference.config import Clocks
from fsd_inference.errors import RunError, StallError
from tests.support.processes import wait_until
from tests.support.runs import session

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]

WORKERS = 4
STALL_S = 2.0
NETWORK = fsd.random_network([96] * 12, connections=2, seed=5)  # not all ranks are neighbours
X = np.random.default_rng(0).random((40, 96), np.float32)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    with temporary_stack(StackSettings(name="fsd-stopped", ranks=WORKERS, purge_settle_s=0.0)) as made:
        save_stack(made, path)
        yield path


def error_of_a_run(
    channel: str, stack: Path | None, victim: int, branching: int = 4, workers: int = WORKERS, samples: int = 40
) -> tuple[RunError, float]:
    """Stop a rank while all compute; return the error of the run, and how long after that it came."""
    stopped: list[tuple[int, float]] = []
    over = threading.Event()

    def stop() -> None:
        pids: dict[int, int] = {}

        def all_run() -> bool:
            pids.update(ranks_of(os.getpid()))
            return len(pids) == workers or over.is_set()

        wait_until(all_run, "all ranks run", 60)
        if workers > 1:
            time.sleep(0.6)  # into the first layers, each of which takes at least 0.3 s
        os.kill(pids[victim], signal.SIGSTOP)
        stopped.append((pids[victim], time.monotonic()))

    clocks = Clocks(start_s=30, stall_s=STALL_S, run_s=60)
    with session(
        NETWORK,
        channel,
        stack,
        workers=workers,
        partition="block",
        attempts=1,
        delay_s=0.3,
        clocks=clocks,
        branching=branching,
    ) as distributed:
        stopper = threading.Thread(target=stop)
        stopper.start()
        try:
            with pytest.raises(RunError) as caught:
                distributed.infer(np.resize(X, (samples, 96)))
            ended = time.monotonic()
        finally:
            over.set()
            stopper.join()
        wait_until(lambda: ranks_of(os.getpid()) == {}, "all ranks have ended", 10)
    return caught.value, ended - stopped[0][1]


@pytest.mark.parametrize(
    ("channel", "victim", "branching"),
    [
        ("local", 3, 1),
        ("local", 0, 4),
        ("local", 1, 4),
        pytest.param("local", 2, 4, marks=pytest.mark.long),
        pytest.param("local", 3, 4, marks=pytest.mark.long),
        ("queue", 0, 4),
        pytest.param("queue", 1, 4, marks=pytest.mark.long),
        pytest.param("queue", 2, 4, marks=pytest.mark.long),
        pytest.param("queue", 3, 4, marks=pytest.mark.long),
        pytest.param("object", 0, 4, marks=pytest.mark.long),
        pytest.param("object", 1, 4, marks=pytest.mark.long),
        ("object", 2, 4),
        pytest.param("object", 3, 4, marks=pytest.mark.long),
    ],
)
def test_the_rank_that_is_stopped_is_named_soon(channel: str, victim: int, branching: int, stack: Path) -> None:
    error, seconds = error_of_a_run(channel, stack, victim, branching)
    assert isinstance(error, StallError)
    assert (error.rank, error.operation, error.retryable) == (victim, "receive", True)
    assert error.layer is not None
    assert 0 <= error.layer < len(NETWORK)
    assert seconds < 25  # the run clock, at which the run would end by itself, is 60 s


@pytest.mark.parametrize("channel", ["local", "object"])
def test_a_rank_alone_that_is_stopped_is_named_soon(channel: str, stack: Path) -> None:
    error, seconds = error_of_a_run(channel, stack, 0, workers=1, samples=200_000)
    assert isinstance(error, StallError)
    assert (error.rank, error.operation, error.retryable) == (0, "run", True)
    assert seconds < 15
