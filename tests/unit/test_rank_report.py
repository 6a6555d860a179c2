"""Reports of ranks: counts include its own write, and its size is bounded for any number of ranks and layers."""

from __future__ import annotations

import json

import pytest

from fsd_inference.engine.rank import _put_counted
from fsd_inference.engine.reporting import longest, most_events, rank_report
from fsd_inference.rank_report import Interval, RankReport
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import UsageMeter


class Repeating(MemoryStore):
    """Writes that took so many requests each, the last number for ever."""

    def __init__(self, *requests: int) -> None:
        super().__init__()
        self._requests = list(requests)
        self.counted = UsageMeter()

    def put(self, key: str, data: bytes) -> str:
        for repeat in range(self._requests.pop(0) if len(self._requests) > 1 else self._requests[0]):
            self.counted.request("s3.put", retry=repeat > 0)
        return super().put(key, data)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("requests", [(1,), (3, 1), (1, 2, 1), (2, 2, 3, 1)])
@pytest.mark.parametrize("foreseen", [1, 2])
def test_a_report_counts_its_own_writing_however_often_requests_are_repeated(
    requests: tuple[int, ...], foreseen: int
) -> None:
    store = Repeating(*requests)
    one_write = UsageMeter()
    for repeat in range(foreseen):
        one_write.request("s3.put", retry=repeat > 0)
    _put_counted(store, "report", RankReport(3), store.counted.snapshot, one_write.snapshot())
    report = RankReport.from_json(json.loads(store.get("report") or b""))
    assert report == RankReport(3, usage=store.counted.snapshot())


def report_of(workers: int, layers: int, arrivals: int) -> RankReport:
    """A rank that hears `arrivals` frames before each layer and sends to all others after it."""
    began = 1_732_252_345.678901234
    names = ("wait", "unpack", "boundary", "pack", "send", "interior")
    intervals = [Interval("load", -1, 0, began, began + 0.5)]
    for layer in range(layers):
        start = began + 1 + 0.1 * layer
        intervals += [Interval("receive", layer, 0, start, start)] * arrivals
        intervals += [
            Interval(name, layer, 0, start + 0.012345678 * i, start + 0.012345678 * (i + 1))
            for i, name in enumerate(names)
        ]
    return rank_report(
        rank=0,
        starter=None,
        started=began,
        workers=workers,
        layers=layers,
        intervals=intervals,
        sent=[(layer, 3, 30_000) for layer in range(layers)],
        sent_to=dict.fromkeys(range(1, workers), (layers, 1_234_567)),
        requests=list(range(layers + 1)),
        result_bytes=0,
        error=None,
    )


def test_a_report_stays_small() -> None:
    report = report_of(workers=1000, layers=120, arrivals=999)
    assert len(json.dumps(report.to_json())) < 120_000
    assert len(report.events) == most_events(1000) == 500
    left, count = report.events_left_out, 1 + 120 * (999 + 6)
    assert sum(number for number, _ in left.values()) + 500 == count
    assert left["receive"] == (120 * 999, 0)
    starts = [start for *_, start, _ in report.events]
    assert starts == sorted(starts)
    assert report.wait_s == pytest.approx(120 * 0.012345678, abs=1e-4)
    assert (report.sent_to or ())[0] == (1, 120, 1_234_567)


def test_a_usual_run_reports_all_its_events() -> None:
    report = report_of(workers=8, layers=120, arrivals=7)
    assert len(report.events) == 1 + 120 * (7 + 6)
    assert report.events_left_out == {}


def test_the_longest_intervals_stay() -> None:
    intervals = [Interval("wait", i, 0, i, i + i % 5) for i in range(10)]
    kept, left_out = longest(intervals, 4)
    assert [interval.layer for interval in kept] == [3, 4, 8, 9]
    assert left_out == {"wait": (6, 6.0)}
