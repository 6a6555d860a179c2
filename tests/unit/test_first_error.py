"""The choice of the error that is shown to the user, among those that ranks report."""

from __future__ import annotations

import json

import pytest

from fsd_inference.config import RunSettings
from fsd_inference.engine.ending import first_error, read_reports
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AbortedError, PeerGoneError, RunError, StallError, WorkerDiedError, as_run_error
from fsd_inference.rank_report import RankReport
from fsd_inference.store.memory import MemoryStore

SPEC = RunSpec("0" * 32, 0, "1" * 32, 1, 1, 0.0, RunSettings(workers=4))


def reports(*errors: RunError | None) -> list[RankReport]:
    """The reports of ranks 0, 1, ..."""
    return [RankReport(rank, error=None if error is None else error.record()) for rank, error in enumerate(errors)]


def died(rank: int) -> WorkerDiedError:
    return WorkerDiedError(f"rank {rank} died", rank=rank, operation="run")


LOAD = RunError("rank 2, load: damaged", rank=2, operation="load")
GONE = as_run_error(PeerGoneError("rank 2 is gone", rank=2), rank=1, operation="send", layer=6)


@pytest.mark.parametrize(
    ("told", "first"),
    [
        (reports(None, None, None, None), None),
        # Rank 0 saw rank 2 end; rank 2 says why.
        (reports(died(2), AbortedError("stopped"), LOAD, AbortedError("stopped")), LOAD),
        # Rank 0 saw rank 1 end, which had seen rank 3 end, which cannot say anything.
        (reports(died(1), died(3), AbortedError("stopped")), died(3)),
        # Rank 1 could not send to rank 2, which says why, or cannot say anything.
        (reports(None, GONE, LOAD, None), LOAD),
        (
            reports(AbortedError("stopped"), GONE),
            RunError(str(GONE), rank=2, layer=6, operation="send", retryable=True),
        ),
        # Two ranks that wait for each other still give one answer.
        (reports(StallError("a", rank=1), StallError("b", rank=0), None, None), StallError("a", rank=1)),
        (reports(AbortedError("stopped"), None, None, None), AbortedError("stopped")),
    ],
)
def test_the_origin_is_found(told: list[RankReport], first: RunError | None) -> None:
    found = first_error(SPEC, told, [])
    assert (found and found.record()) == (first and first.record())


def test_a_rank_without_report_is_named_where_no_one_complains() -> None:
    found = first_error(SPEC, reports(None, None, None), [])
    assert found is not None
    assert (found.rank, found.retryable) == (3, True)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"rank": "two"}', b'{"rank": 2, "version": 99}', json.dumps({"error": None}).encode()]
)
def test_a_rank_whose_report_makes_no_sense_is_as_good_as_silent(data: bytes) -> None:
    store = MemoryStore()
    for rank in range(4):
        store.put(SPEC.report_key(rank), json.dumps(RankReport(rank).to_json()).encode())
    assert first_error(SPEC, read_reports(store, SPEC, range(4)), []) is None
    store.put(SPEC.report_key(2), data)
    found = first_error(SPEC, read_reports(store, SPEC, range(4)), [])
    assert found is not None
    assert (found.rank, found.operation, found.retryable) == (2, "report", True)
