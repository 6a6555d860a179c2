"""Injected faults in real runs: each ends in time, with a typed error that names its place, and cleans up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.aws.local import temporary_stack
from fsd_inference.aws.provision import StackSettings
from fsd_inference.aws.stack import load_stack, save_stack
from fsd_inference.chaos.processes import ranks_of, runs
from fsd_inference.config import Clocks
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import DeadlineError, RunError, StallError, WorkerDiedError
from fsd_inference.partitioning import Manifest
from fsd_inference.session.distributed import Distributed
from fsd_inference.session.executor import Executor
from fsd_inference.temporary import TemporaryFolder
from tests.support.processes import temporary_folders, wait_until
from tests.support.runs import same, session

pytestmark = [pytest.mark.emulator, pytest.mark.timeout(120)]

NETWORK = fsd.random_network([96] * 6, connections=8, seed=5)
X = np.random.default_rng(0).random((40, 96), np.float32)


@pytest.fixture(scope="module")
def serial() -> fsd.Inference:
    with fsd.Session(NETWORK) as alone:
        return alone.infer(X)


@pytest.fixture(scope="module")
def two_lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    with temporary_stack(StackSettings(name="fsd-faults", lanes=2, ranks=5, purge_settle_s=0.0)) as made:
        save_stack(made, path)
        yield path


@pytest.fixture
def stack(two_lanes: Path, tmp_path: Path) -> Path:
    """The same with one lane alone: a second attempt finds what the first one left."""
    made = load_stack(two_lanes)
    save_stack(replace(made, lanes=made.lanes[:1]), tmp_path / "one.json")
    return tmp_path / "one.json"


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No process and no temporary folder outlives its session."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    yield
    assert temporary_folders() == set()
    wait_until(lambda: ranks_of(os.getpid()) == {}, "all ranks have ended")
    monkeypatch.setattr(tempfile, "tempdir", None)


@contextmanager
def once_all_run(workers: int, act: Callable[[dict[int, int]], None]) -> Iterator[list[float]]:
    """Call `act` with the ranks' processes when all have started; give the list that then gets the time."""
    at: list[float] = []

    def watch() -> None:
        pids: dict[int, int] = {}

        def all_run() -> bool:
            pids.update(ranks_of(os.getpid()))
            return len(pids) == workers

        wait_until(all_run, "all ranks run", 60)
        act(pids)
        at.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield at
    finally:
        watcher.join()


@pytest.mark.parametrize("channel", ["local", pytest.param("queue", marks=pytest.mark.long)])
def test_a_stopped_rank_is_named_by_the_stall_clock(channel: str, stack: Path) -> None:
    with (
        session(
            NETWORK,
            channel,
            stack,
            workers=2,
            partition="block",
            attempts=1,
            delay_s=0.5,
            clocks=Clocks(start_s=60, stall_s=3, run_s=60),
        ) as distributed,
        pytest.raises(StallError) as caught,
        once_all_run(2, lambda pids: os.kill(pids[1], signal.SIGSTOP)) as stopped_at,
    ):
        distributed.infer(X)
    assert (caught.value.rank, caught.value.operation) == (1, "receive")
    assert caught.value.layer is not None
    assert caught.value.retryable
    assert time.monotonic() - stopped_at[0] < 45


@pytest.mark.parametrize("channel", ["local", "queue"])
def test_a_deadline_that_is_too_short(channel: str, stack: Path) -> None:
    clocks = Clocks(start_s=30, stall_s=30, run_s=1.5)
    began = time.monotonic()
    with (
        session(
            NETWORK, channel, stack, workers=3, partition="block", attempts=1, delay_s=2.0, clocks=clocks
        ) as distributed,
        pytest.raises(DeadlineError, match="by the run's deadline") as caught,
    ):
        distributed.infer(X)
    assert caught.value.rank in range(3)
    assert caught.value.operation == "run"
    assert time.monotonic() - began < 30


def prepared(distributed: fsd.Session) -> tuple[Executor, Manifest]:
    """Where a session's plan and runs are, and what it runs."""
    engine = distributed._engine
    assert isinstance(engine, Distributed)
    executor, stored = engine._prepared()
    return executor, stored.manifest


def missing(data: bytes) -> bytes | None:
    return None


def cut_short(data: bytes) -> bytes | None:
    return data[: len(data) // 2]


def changed(data: bytes) -> bytes | None:
    middle = len(data) * 3 // 4
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("channel", "damage", "said", "is_retried"),
    [
        ("local", missing, "rank 1, load: .*rank-00001", False),
        ("local", cut_short, "rank 1, load: .*rank-00001", False),
        ("local", changed, r"rank 1, layer \d+, load: rank-00001", True),
        ("queue", missing, "rank 1, load: .*rank-00001", False),
    ],
)
def test_a_damaged_shard_names_its_rank(
    channel: str, stack: Path, damage: Callable[[bytes], bytes | None], said: str, is_retried: bool
) -> None:
    with session(NETWORK, channel, stack, workers=2, partition="block") as distributed:
        executor, manifest = prepared(distributed)
        key = f"plans/{manifest.plan_digest.hex()}/{manifest.shard(1).file}"
        whole = executor.plans.get(key)
        assert whole is not None
        harmed = damage(whole)
        if harmed is None:
            executor.plans.delete([key])
        else:
            executor.plans.put(key, harmed)
        with pytest.raises(RunError, match=said) as caught:
            distributed.infer(X)
        assert (caught.value.rank, caught.value.operation, caught.value.retryable) == (1, "load", is_retried)
        assert list(executor.runs.list("runs/")) == []
        executor.plans.put(key, whole)
        assert distributed.infer(X).outputs is not None


def test_a_shard_that_was_read_wrong_once_is_read_again(monkeypatch: pytest.MonkeyPatch, serial: fsd.Inference) -> None:
    with session(NETWORK, "local", workers=2, partition="block") as distributed:
        executor, manifest = prepared(distributed)
        key = f"plans/{manifest.plan_digest.hex()}/{manifest.shard(1).file}"
        whole = executor.plans.get(key)
        assert whole is not None
        attempt = executor.attempt
        numbers: list[int] = []

        def flip_a_bit_of_the_first(spec: RunSpec, progress: Callable[[float], None]) -> Ended:
            numbers.append(spec.attempt)
            executor.plans.put(key, changed(whole) or b"" if spec.attempt == 0 else whole)
            return attempt(spec, progress)

        monkeypatch.setattr(executor, "attempt", flip_a_bit_of_the_first)
        outputs = distributed.infer(X).outputs
    assert numbers == [0, 1]
    assert same(outputs, serial.outputs)


@pytest.mark.parametrize("damage", [missing, cut_short, changed])
def test_a_damaged_input_is_found_when_it_is_loaded(
    damage: Callable[[bytes], bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(NETWORK, "local", workers=2, partition="block") as distributed:
        executor, _ = prepared(distributed)
        put = executor.runs.put

        def harm(key: str, data: bytes) -> str:
            harmed = damage(data)
            return "" if harmed is None else put(key, harmed)

        monkeypatch.setattr(executor.runs, "put", harm)
        with pytest.raises(RunError, match=r"rank \d, load:") as caught:
            distributed.infer(X)
        assert (caught.value.operation, caught.value.retryable) == ("load", damage is changed)


@pytest.mark.parametrize("damage", [missing, cut_short, changed])
def test_a_damaged_result_is_no_answer(
    damage: Callable[[bytes], bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with session(NETWORK, "local", workers=2, partition="block") as distributed:
        executor, _ = prepared(distributed)
        get = executor.runs.get

        def harm(key: str) -> bytes | None:
            data = get(key)
            return damage(data) if data is not None and key.endswith("results/00001") else data

        monkeypatch.setattr(executor.runs, "get", harm)
        with pytest.raises(RunError, match="collecting the results") as caught:
            distributed.infer(X)
        assert (caught.value.operation, caught.value.retryable) == ("collect", True)


@pytest.mark.parametrize(("channel", "victim"), [("local", 1), ("queue", 0), ("queue", 2), ("object", 1)])
def test_a_rank_killed_in_the_first_attempt_leaves_the_second_alone(
    channel: str, victim: int, stack: Path, serial: fsd.Inference
) -> None:
    with (
        session(NETWORK, channel, stack, workers=3, partition="block", branching=1, delay_s=0.3) as distributed,
        once_all_run(3, lambda pids: os.kill(pids[victim], signal.SIGKILL)),
    ):
        answer = distributed.infer(X)
        assert same(answer.outputs, serial.outputs)
    assert answer.report.attempts == 2


@pytest.mark.parametrize(("workers", "branching", "victim"), [(3, 1, 0), (3, 1, 1), (3, 1, 2), (6, 2, 5)])
def test_the_rank_that_was_killed_is_named_whoever_notices_first(workers: int, branching: int, victim: int) -> None:
    with (
        session(
            NETWORK, "local", workers=workers, partition="block", branching=branching, attempts=1, delay_s=0.5
        ) as distributed,
        pytest.raises(WorkerDiedError, match=f"rank {victim} ended .*killed by signal 9") as caught,
        once_all_run(workers, lambda pids: os.kill(pids[victim], signal.SIGKILL)) as killed_at,
    ):
        distributed.infer(X)
    assert (caught.value.rank, caught.value.retryable) == (victim, True)
    assert time.monotonic() - killed_at[0] < 30  # far from the clocks: the death was seen, not waited for


@pytest.mark.parametrize("lanes", ["stack", "two_lanes"])
def test_sessions_share_the_lanes_of_a_stack(lanes: str, request: pytest.FixtureRequest, serial: fsd.Inference) -> None:
    """Three at once: where there are fewer lanes they take turns, and the time they wait is not the run's."""
    stack = request.getfixturevalue(lanes)
    answers: list[fsd.Inference] = []

    def infer() -> None:
        clocks = Clocks(start_s=20, stall_s=20, run_s=20)
        with session(NETWORK, "queue", stack, workers=2, partition="block", attempts=1, clocks=clocks) as distributed:
            answers.append(distributed.infer(X))

    threads = [threading.Thread(target=infer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert all(same(answer.outputs, serial.outputs) for answer in answers)


SESSION = """
import signal, sys, numpy as np, fsd_inference as fsd
from fsd_inference.session.platforms import ProcessPlatform
ProcessPlatform.delay_s = 5.0
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it may be ignored
network = fsd.random_network([96] * 6, connections=8, seed=5)
chain = fsd.Tuning(branching=1)
with fsd.Session(network, channel=sys.argv[1], workers=3, partition="block", tuning=chain) as session:
    session.infer(np.ones((4, 96), np.float32))
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start programs with a session whose run takes long, each with a folder of temporary files of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(channel: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION, channel],
            env=os.environ | {"TMPDIR": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        assert process.stderr is not None
        process.stderr.close()
        process.kill()
        process.wait()


@pytest.mark.parametrize("channel", ["local", "queue", "object"])
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL], ids=lambda n: n.name
)
def test_ranks_and_emulator_end_with_a_session_that_is_killed(
    program: Callable[[str], subprocess.Popen[str]],
    channel: str,
    number: signal.Signals,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program without handlers of signals: its processes end with it, and the next one removes its files."""
    process = program(channel)
    pids: dict[int, int] = {}

    def all_run() -> bool:
        pids.update(ranks_of(process.pid))
        return len(pids) == 3

    wait_until(all_run, "all ranks run", 60)
    started = list(pids.values())
    for described in tmp_path.glob("fsd-inference-stack-*/stack.json"):
        emulator = load_stack(described).emulator
        assert emulator is not None
        assert runs(emulator.pid)
        started.append(emulator.pid)
    assert len(started) == (3 if channel == "local" else 4)
    process.send_signal(number)
    process.wait()
    wait_until(lambda: not any(map(runs, started)), "ranks and emulator have ended", 30)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    TemporaryFolder("next").close()
    assert temporary_folders() == set()


NOT_CLOSED = """
import gc, os, sys, time, fsd_inference as fsd
from pathlib import Path
from fsd_inference.aws.stack import load_stack
session = fsd.Session(fsd.random_network([16] * 3, connections=4), channel="queue", workers=2)
session.prepare()
(described,) = Path(os.environ["TMPDIR"]).glob("fsd-inference-stack-*/stack.json")
emulator = load_stack(described).emulator
print(emulator.pid, flush=True)
child = os.fork()
if not child:
    session.close()
    sys.exit()
os.waitpid(child, 0)
os.kill(emulator.pid, 0)  # it is there still
if sys.argv[1] == "forgotten":
    del session
    gc.collect()
    assert not os.listdir(os.environ["TMPDIR"])
"""


@pytest.mark.parametrize("how", ["forgotten", "open at the end"])
def test_an_emulator_ends_with_a_session_that_is_not_closed(how: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOT_CLOSED, how],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not runs(int(done.stdout))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_the_sessions_alone(program: Callable[[str], subprocess.Popen[str]]) -> None:
    process = program("local")
    pids: dict[int, int] = {}

    def all_run() -> bool:
        pids.update(ranks_of(process.pid))
        return len(pids) == 3

    wait_until(all_run, "all ranks run", 60)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=30)
    assert errors.count("KeyboardInterrupt") == 1
    assert errors.count("Traceback") == 1
    wait_until(lambda: not any(map(runs, pids.values())), "all ranks have ended", 10)
