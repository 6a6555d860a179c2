"""When an attempt with a straggler ends, so that another one overtakes it from a checkpoint, and what follows."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from fsd_inference.aws import watching
from fsd_inference.aws.handlers import staying
from fsd_inference.aws.handlers.staying import stay_busy
from fsd_inference.aws.notes import slow_key, told_key
from fsd_inference.aws.watching import Watch, last_reports
from fsd_inference.config import Clocks, FailurePolicy, RunSettings
from fsd_inference.engine.control import abort_frame
from fsd_inference.engine.ending import Ended, first_error
from fsd_inference.engine.overtaking import straggler_error
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AbortedError, RunError, SettingError, StragglerError, run_error_from_record
from fsd_inference.rank_report import RankReport
from fsd_inference.session.reporting import _earlier
from fsd_inference.store.memory import MemoryStore
from fsd_inference.stragglers import Lag
from tests.support.clock import Clock

WORKERS = 3
SETTINGS = RunSettings(workers=WORKERS, clocks=Clocks(30, 60, 60), checkpoint_every=10, restart_stragglers=True)
SPEC = RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, SETTINGS)
LAG = Lag(rank=2, factor=5.0, layer=3, layers=24, of=100, layer_s=1.0, began=1010.0)
ERROR = StragglerError("rank 2 is slow", rank=2, layer=24, operation="run")


def stored(*layers: int, ranks: int = WORKERS) -> MemoryStore:
    """A store with the checkpoints of all ranks at some layers."""
    store = MemoryStore()
    for layer in layers:
        for rank in range(ranks):
            store.put(SPEC.checkpoint_key(layer, rank), b"rows")
    return store


def test_an_attempt_ends_if_another_one_halves_the_rest() -> None:
    """76 s are left; the other attempt starts in some seconds, and its 80 layers take 0.2 s each."""
    error = straggler_error(LAG, SPEC, stored(10, 20), 21.9)
    assert isinstance(error, StragglerError)
    assert (error.rank, error.layer, error.retryable) == (2, 24, True)
    assert str(error).startswith("rank 2 computes 5.0 times slower than the median of the other ranks since layer 3")
    assert straggler_error(LAG, SPEC, stored(10, 20), 22.1) is None


@pytest.mark.parametrize(
    ("lag", "spec", "store", "why"),
    [
        (LAG, SPEC, stored(), "no checkpoint"),
        (LAG, SPEC, stored(10, ranks=2), "no complete checkpoint"),
        (LAG, replace(SPEC, resume_at=10), stored(10), "none later than where the attempt began"),
        (LAG._replace(layers=90), SPEC, stored(10), "it is nearly done"),
        (LAG._replace(factor=1.5), SPEC, stored(10, 20), "it is not slow enough"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_others_go_on(lag: Lag, spec: RunSpec, store: MemoryStore, why: str) -> None:
    assert straggler_error(lag, spec, store, 2.0) is None, why


def test_without_checkpoints_nothing_is_restarted() -> None:
    with pytest.raises(SettingError, match="set checkpoint_every too"):
        FailurePolicy(restart_stragglers=True)
    with pytest.raises(SettingError, match="set checkpoint_every too"):
        RunSettings(restart_stragglers=True)


class NoFailures:
    """A queue of Lambda's records that stays empty."""

    def receive(self, _wait_s: int) -> list[tuple[str, str]]:
        time.sleep(0.01)
        return []


@pytest.mark.parametrize("restarts", [True, False])
def test_a_coordinator_ends_the_attempt(restarts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROGRESS_S", "SLOW_S"):
        monkeypatch.setattr(watching, name, 0.05)
    now = time.time()
    store, settings = stored(10, 20), replace(SETTINGS, restart_stragglers=restarts, clocks=Clocks(60, 60, 60))
    spec = replace(SPEC, settings=settings, deadline=now - 4.0)  # so that a watch that goes on soon ends by itself
    for key in (told_key(spec.prefix), slow_key(spec.prefix, 2)):
        store.put(key, LAG._replace(began=now + 10).to_bytes())
    failures: Any = NoFailures()
    with Watch(store, failures, spec, lambda _: None) as watch:
        error = watch.until_over(now)
    assert isinstance(error, StragglerError) == restarts
    with Watch(store, failures, spec, lambda _: None, lane_s=60.0) as watch:  # the purge takes too long
        assert not isinstance(watch.until_over(now), StragglerError)


def test_all_ranks_are_told_and_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow one too: it is not dead."""
    monkeypatch.setattr(watching, "_QUIET_S", 0.5)
    assert abort_frame(SPEC, 2, ERROR) is not None
    store = MemoryStore()
    for rank in range(WORKERS):
        told = replace(RankReport(rank), error=ERROR.record())
        store.put(SPEC.report_key(rank), json.dumps(told.to_json()).encode())
    reports = last_reports(store, SPEC, ERROR)
    assert [report.rank for report in reports] == [0, 1, 2]
    error = first_error(SPEC, reports, [ERROR])
    assert error is not None
    assert error.record() == ERROR.record()
    assert isinstance(run_error_from_record(ERROR.record()), StragglerError)


def test_local_ranks_that_are_hung_up_hide_nothing() -> None:
    aborted = AbortedError("the process that started rank 0 is gone", operation="run").record()
    reports = [replace(RankReport(rank), error=aborted) for rank in range(WORKERS)]
    assert first_error(SPEC, reports, [ERROR]) is ERROR


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1000.0)
    monkeypatch.setattr(staying, "time", made)
    return made


def stayed_s(clock: Clock, store: MemoryStore, rank: int = 2, error: RunError = ERROR, limit_s: float = 600.0) -> float:
    """Return the seconds that a rank's function stays busy, whose start clock is 30 s and whose lane's purge 60 s."""
    began = clock.now
    stay_busy(store, SPEC, rank, error, lane_s=60.0, ends=began + limit_s)
    return clock.now - began


def test_a_slow_function_stays_busy_until_the_next_attempt_runs(clock: Clock) -> None:
    following, store = replace(SPEC, attempt=1), MemoryStore()
    assert stayed_s(clock, store) == 80.0  # no other attempt comes
    assert stayed_s(clock, store, limit_s=5.0) == 5.0
    store.put(following.claim_key(0), b"")
    assert stayed_s(clock, store) == 15.0  # half of the start clock
    store.put(following.claim_key(WORKERS - 1), b"")
    assert stayed_s(clock, store) == 0.0


def test_other_functions_end_at_once(clock: Clock) -> None:
    assert stayed_s(clock, MemoryStore(), rank=1) == 0.0
    assert stayed_s(clock, MemoryStore(), error=RunError("another", rank=2)) == 0.0


def test_what_a_slow_function_stayed_is_part_of_the_bill() -> None:
    ranks = [RankReport(rank, started=1000.0, ended=1030.0) for rank in range(WORKERS)]
    first = Ended(1000.0, ranks, ERROR, 512, (999.0, 1031.0), 0.5)
    second = Ended(1035.0, [replace(rank, started=1036.5 + rank.rank, ended=1050.0) for rank in ranks], None, 512)
    assert list(_earlier([(first, second)])) == pytest.approx([3, 30.0 * 3 + 8.5, 1, 32.5])
    other = replace(first, error=RunError("another", rank=2))
    assert _earlier([(other, second)]).workers_s == pytest.approx(90.0)
    processes = replace(first, memory_mb=None)
    assert _earlier([(processes, second)]).workers_s == pytest.approx(90.0)
