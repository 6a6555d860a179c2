"""A rank whose processor is taken away most of the time: it is named while the run goes on, and may be overtaken."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.chaos.processes import processes_of, ranks_of, runs
from fsd_inference.cost.metered import function_times
from fsd_inference.progress import Silent
from fsd_inference.stack_description import StackSpec
from tests.support.functions import functions_stack
from tests.support.processes import wait_until
from tests.support.runs import same, serial, session

WORKERS, VICTIM = 3, 1
NETWORK = fsd.random_network([512] * 61, connections=512, seed=5)
X = np.random.default_rng(0).random((3000, 512), np.float32)  # so that the slow rank needs half a minute


class Told(Silent):
    """Keeps what is waited for."""

    def __init__(self) -> None:
        self.waits: list[str] = []

    def waiting(self, what: str) -> None:
        self.waits.append(what)


class Slower:
    """Lets one of a run's processes run for 4 % of the time, from when all ranks run until one is named.

    Parameters
    ----------
    told : Told
    ranks : callable
        Returns the process ids of the ranks that run.
    stays : bool, optional
        Whether the process stays slow until it ends.
    """

    def __init__(self, told: Told, ranks: Callable[[], dict[int, int]], *, stays: bool = False) -> None:
        self.at_work = 0  # ranks that still ran when it was named
        self.victim = 0
        self._told, self._ranks, self._stays = told, ranks, stays
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._slow_down)

    def __enter__(self) -> Slower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _slow_down(self) -> None:
        pids: dict[int, int] = {}

        def all_run() -> bool:
            pids.update(self._ranks())
            return len(pids) == WORKERS or self._over.is_set()

        wait_until(all_run, "all ranks run", 60)
        self.victim = pids.get(VICTIM, 0)
        with suppress(ProcessLookupError):  # it has ended, which the test will find
            while (self._stays or not self._told.waits) and not self._over.is_set():
                os.kill(self.victim, signal.SIGSTOP)
                time.sleep(0.24)
                os.kill(self.victim, signal.SIGCONT)
                time.sleep(0.01)
        self.at_work = len(self._ranks())


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_rank_that_is_slowed_down_is_named_while_the_run_goes_on() -> None:
    told = Told()
    with session(NETWORK, "local", workers=WORKERS, partition="block", progress=told, attempts=1) as distributed:
        distributed.prepare()
        with Slower(told, lambda: ranks_of(os.getpid())) as slower:
            answer = distributed.infer(X)
    (line,) = told.waits
    assert line.startswith(f"rank {VICTIM} computes ")
    assert "times slower than the median of the other ranks since layer" in line
    assert slower.at_work == WORKERS
    assert same(answer.outputs, serial(NETWORK, X))
    assert [straggler.rank for straggler in answer.report.stragglers] == [VICTIM]


OVERTAKING: dict[str, Any] = {"checkpoint_every": 2, "restart_stragglers": True, "attempts": 1}


def check_overtaken(report: fsd.Report, named: int) -> None:
    """Check the report of a run that another attempt finished, with what that cost."""
    assert report.attempts == 2
    assert 4 <= report.resumed_at < len(NETWORK)
    (error,) = report.earlier_errors
    assert (error["type"], error["rank"]) == ("StragglerError", named)
    assert "times slower than the median of the other ranks" in error["message"]
    assert report.stragglers == []
    workers, _ = function_times(report)
    assert workers.invocations == WORKERS + report.earlier.workers
    assert report.earlier.workers >= 2  # all but the one that is slow to report as well


@pytest.mark.long
@pytest.mark.timeout(240)
def test_another_attempt_overtakes_a_process_that_is_slowed_down() -> None:
    told = Told()
    with session(NETWORK, "local", workers=WORKERS, partition="block", progress=told, **OVERTAKING) as distributed:
        distributed.prepare()
        with Slower(told, lambda: ranks_of(os.getpid()), stays=True) as slower:
            answer = distributed.infer(X)
    check_overtaken(answer.report, VICTIM)
    assert same(answer.outputs, serial(NETWORK, X))
    assert not runs(slower.victim)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[StackSpec]:
    """A stack with functions, to which the network has been pushed, described in `tmp_path`/stack.json."""
    NETWORK.save(tmp_path / "net")
    with functions_stack(tmp_path, ranks=WORKERS) as made:
        fsd.push(tmp_path / "net", stack=tmp_path / "stack.json", workers=WORKERS, partition="block")
        yield made


def functions_of(stack: StackSpec) -> dict[int, int]:
    """The processes of a stack's worker functions, which may be those of any ranks."""
    return dict(enumerate(sorted(processes_of(f"{stack.name}-worker-512"))))


def on_functions(tmp_path: Path, told: Told, channel: str, **settings: Any) -> fsd.Session:
    return session(tmp_path / "net", channel, tmp_path / "stack.json", workers=WORKERS, progress=told, **settings)


@pytest.mark.long
@pytest.mark.emulator
@pytest.mark.functions
@pytest.mark.timeout(300)
def test_a_function_that_is_slowed_down_is_named_while_the_run_goes_on(stack: StackSpec, tmp_path: Path) -> None:
    told = Told()
    with on_functions(tmp_path, told, "object", attempts=1) as distributed:
        distributed.infer(X[:1])  # so that all functions have started
        with Slower(told, lambda: functions_of(stack)) as slower:
            answer = distributed.infer(X)
    (line,) = told.waits
    (rank,) = (report.rank for report in answer.report.ranks if report.process == slower.victim)
    assert line.startswith(f"rank {rank} computes ")
    assert same(answer.outputs, serial(NETWORK, X))
    assert [straggler.rank for straggler in answer.report.stragglers] == [rank]


@pytest.mark.long
@pytest.mark.emulator
@pytest.mark.functions
@pytest.mark.timeout(300)
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_another_attempt_overtakes_a_function_that_is_slowed_down(
    channel: str, stack: StackSpec, tmp_path: Path
) -> None:
    """The environment stays slow, so that none of the new ranks may be given it."""
    told = Told()
    with on_functions(tmp_path, told, channel, **OVERTAKING) as distributed:
        distributed.infer(X[:1])  # so that all functions have started
        with Slower(told, lambda: functions_of(stack), stays=True) as slower:
            answer = distributed.infer(X)
    assert len(told.waits) == 1
    check_overtaken(answer.report, int(told.waits[0].split()[1]))
    assert slower.victim not in {rank.process for rank in answer.report.ranks}
    assert same(answer.outputs, serial(NETWORK, X))
