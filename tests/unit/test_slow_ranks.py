"""How slow ranks on functions are found: what a rank tells of itself, and what its coordinator makes of it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from fsd_inference.aws import watching
from fsd_inference.aws.failures import parse_reported, reported_failure
from fsd_inference.aws.notes import Progress, RankNotes, progress_key, slow_folder, slow_key, tell_failure, told_key
from fsd_inference.aws.slow_ranks import SlowRanks
from fsd_inference.aws.status import RunStatus
from fsd_inference.aws.watching import Watch
from fsd_inference.cli.runs import _facts
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import StallError
from fsd_inference.rank_report import RankReport
from fsd_inference.store.base import ObjectInfo
from fsd_inference.store.memory import MemoryStore
from fsd_inference.stragglers import Foreseen, Lag, Pace, Straggler
from fsd_inference.threads import ThreadPool

WORKERS = 4
STALL = StallError("rank 1 waits", rank=2, layer=5, operation="receive")
SPEC = RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings(workers=WORKERS, clocks=Clocks(60, 60, 60)))
LAG = Lag(2, 5.0, 3, 12, 60, 0.9, 1000.5)


class Counted(MemoryStore):
    """A store that keeps the names of its requests."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []

    def get(self, key: str) -> bytes | None:
        self.requests.append(("get", key))
        return super().get(key)

    def put(self, key: str, data: bytes) -> str:
        self.requests.append(("put", key))
        return super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        self.requests.append(("put", key))
        return super().put_if_absent(key, data)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self.requests.append(("list", prefix))
        return super().list(prefix)


def paces(rank: int, layers: int, kernel_s: float, foreseen_s: float, busy: float = 1.0) -> Iterator[Pace]:
    """The paces of a rank whose layers are all alike, from second 1000 on."""
    for layer in range(1, layers + 1):
        yield Pace(
            1000 + layer * kernel_s / busy, rank, layer, layer * kernel_s, layer * kernel_s, layer * foreseen_s, 60
        )


def after(told: Iterator[Pace]) -> Foreseen:
    foreseen = Foreseen()
    for pace in told:
        foreseen.note(pace)
    return foreseen


def test_a_rank_that_is_slower_than_foreseen_says_since_when() -> None:
    lag = after(paces(2, 12, 1.0, 0.25)).lag
    assert lag is not None
    assert (lag.rank, lag.layer, lag.layers) == (2, 7, 12)
    assert [lag.factor, lag.layer_s, lag.began] == pytest.approx([4.0, 1.0, 1001.0])
    assert Lag.from_bytes(lag.to_bytes()) == lag


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (paces(2, 12, 1.0, 0.4), "not slow enough"),
        (paces(2, 5, 1.0, 0.1), "not for 5 s"),
        (paces(2, 4, 3.0, 0.1), "not for 4 layers"),
        (paces(2, 30, 1.0, 0.1, busy=0.4), "it waits most of the time"),
        (paces(2, 30, 1.0, 0.0), "nothing was foreseen"),
        (iter(()), "nothing is known"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_ranks_say_nothing(told: Iterator[Pace], why: str) -> None:
    assert after(told).lag is None, why


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"x", b'{"rank": 1}', STALL.record().__repr__().encode()])
def test_other_objects_are_no_lags(data: bytes) -> None:
    assert Lag.from_bytes(data) is None


def write(store: MemoryStore, told: Iterator[Pace], spec: RunSpec = SPEC) -> None:
    with ThreadPool(1) as thread:
        notes: RankNotes | None = None
        for pace in told:
            notes = notes or RankNotes(store, spec, pace.rank, thread)
            notes.on_layer(pace)


def test_a_rank_that_is_as_fast_as_foreseen_makes_no_request() -> None:
    store = Counted()
    for rank in range(WORKERS):
        write(store, paces(rank, 50, 1.0, 0.5))
    assert store.requests == []


def test_a_slow_rank_tells_it_once_in_ten_seconds() -> None:
    store = Counted()
    write(store, paces(2, 50, 1.0, 0.2))
    assert store.requests == [("put", slow_key(SPEC.prefix, 2)), ("put", told_key(SPEC.prefix))]
    lag = Lag.from_bytes(store.get(slow_key(SPEC.prefix, 2)) or b"")
    assert lag is not None
    assert lag.rank == 2
    assert lag.factor == pytest.approx(5.0)


def test_a_rank_alone_tells_nobody() -> None:
    store, alone = Counted(), RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings())
    write(store, paces(0, 50, 1.0, 0.2), alone)
    assert store.requests == []


@pytest.mark.parametrize("progress", [Progress(57), Progress(57, 1.25)])
def test_progress_comes_back(progress: Progress) -> None:
    assert Progress.from_bytes(progress.to_bytes()) == progress
    assert progress.to_bytes().split()[0] == b"57"


@pytest.mark.parametrize("data", [b"", b"x", b"1 2 3", b"1 x", b"\xff"])
def test_other_objects_are_no_progress(data: bytes) -> None:
    assert Progress.from_bytes(data) is None


def test_a_failure_replaces_a_lag_but_no_failure() -> None:
    store = MemoryStore()
    store.put(told_key(SPEC.prefix), LAG.to_bytes())
    tell_failure(store, SPEC.prefix, reported_failure(STALL))
    tell_failure(store, SPEC.prefix, reported_failure(StallError("another", rank=0)))
    error = parse_reported(store.get(told_key(SPEC.prefix)) or b"")
    assert error is not None
    assert error.record() == STALL.record()


def found(*lags: Lag, rank_0: float | None = None, workers: int = WORKERS) -> list[Straggler]:
    """The stragglers by what slow ranks and rank 0 have told."""
    spec = RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings(workers=workers))
    store = MemoryStore()
    for lag in lags:
        store.put(slow_key(spec.prefix, lag.rank), lag.to_bytes())
    if rank_0 is not None:
        store.put(progress_key(spec.prefix), Progress(9, rank_0).to_bytes())
    slow = SlowRanks(store, spec)
    slow.read()
    return [lag.straggler for lag in iter(slow.named, None)]


def test_others_are_taken_to_be_as_foreseen_or_as_slow_as_rank_0() -> None:
    (named,) = found(LAG)
    assert named == Straggler(2, 5.0, 3)
    (named,) = found(LAG, rank_0=1.25)
    assert named == Straggler(2, 4.0, 3)
    assert found(LAG, rank_0=2.5) == []  # what was foreseen is wrong for all


def test_slow_ranks_are_compared_with_each_other() -> None:
    assert found(*(LAG._replace(rank=rank, factor=4.0 + rank) for rank in range(WORKERS))) == []
    worst = LAG._replace(rank=3, factor=30.0)
    assert [straggler.rank for straggler in found(LAG, worst)] == [3, 2]
    assert found(*(LAG._replace(rank=rank, factor=30.0) for rank in range(1, WORKERS)), rank_0=2.0) == []


def test_two_ranks_are_enough() -> None:
    assert found(LAG._replace(rank=0), workers=2) == [Straggler(0, 5.0, 3)]


def test_too_many_slow_ranks_are_not_read() -> None:
    lags = [LAG._replace(rank=rank) for rank in range(60)]
    assert found(*lags[:50], workers=100) != []
    assert found(*lags[:51], workers=100) == []


def test_the_status_of_a_run_comes_back_and_is_shown_with_its_stragglers() -> None:
    slow = (Straggler(2, 5.0, 3), Straggler(1, 3.5, 9))
    status = RunStatus("0" * 32, 0, "1" * 32, "object", WORKERS, 10, "running", 1.5, 120, 2.5, stragglers=slow)
    assert RunStatus.from_json(json.loads(json.dumps(status.to_json()))) == status
    assert [str(text) for name, text in _facts(status, None) if name == "slow"] == [str(each) for each in slow]
    older = {name: value for name, value in status.to_json().items() if name != "stragglers"}
    assert RunStatus.from_json(older).stragglers == ()


class NoFailures:
    """A queue of Lambda's records that stays empty."""

    def receive(self, _wait_s: int) -> list[tuple[str, str]]:
        time.sleep(0.01)
        return []


def watch(store: MemoryStore, told: list[Straggler]) -> None:
    """Watch an attempt until rank 0 has reported, after 0.6 s."""
    failures: Any = NoFailures()
    spec = RunSpec("0" * 32, 0, "1" * 32, 1, 1, time.time() + 60, SPEC.settings)

    def end() -> None:
        time.sleep(0.6)
        MemoryStore.put(store, spec.report_key(0), json.dumps(RankReport(0).to_json()).encode())

    with ThreadPool(1) as thread, Watch(store, failures, spec, told.append) as watching:
        thread.submit(end)
        assert watching.until_over(time.time()) is None


def test_a_coordinator_tells_a_straggler_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROGRESS_S", "SLOW_S"):
        monkeypatch.setattr(watching, name, 0.05)
    store, told = MemoryStore(), list[Straggler]()
    for key in (told_key(SPEC.prefix), slow_key(SPEC.prefix, 2)):
        store.put(key, LAG.to_bytes())
    watch(store, told)
    assert told == [LAG.straggler]


def test_a_coordinator_looks_for_slow_ranks_only_once_it_knows_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROGRESS_S", "SLOW_S"):
        monkeypatch.setattr(watching, name, 0.05)
    store = Counted()
    watch(store, [])
    assert set(store.requests) == {("get", told_key(SPEC.prefix))}
    store = Counted()
    store.put(told_key(SPEC.prefix), LAG.to_bytes())
    watch(store, [])
    assert ("list", slow_folder(SPEC.prefix)) in store.requests
