"""The trace of a run in the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Each rank is a process with one thread for its work, one for arrivals, and as many as it has concurrent sends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fsd_inference.rank_report import Interval, RankReport
from fsd_inference.report.figures import RunFigures
from fsd_inference.report.tracks import POINTS, SENDS, lanes, main_track

_WORK, _ARRIVALS, _SENDS = 1, 2, 3


def trace(figures: RunFigures) -> dict[str, Any]:
    """Return the trace as plain JSON values.

    Times are in microseconds from the start of the first coordinator, or of rank 0, whichever is earlier.
    """
    report = figures.report
    events: list[dict[str, Any]] = []
    origin = min([figures.start, *(began for began, _ in report.coordinators)])
    for number, (began, ended) in enumerate(report.coordinators):
        pid = report.parts + number
        name = "coordinator" if len(report.coordinators) == 1 else f"coordinator {number}"
        events += [_named("process_name", pid, 0, name), _sorted(pid, number - len(report.coordinators))]
        events.append(_complete(pid, _WORK, "coordinate", began, ended, origin, {}))
    for rank in figures.ranks:
        events += _rank(rank, origin)
    return {
        "displayTimeUnit": "ms",
        "otherData": {"channel": report.channel, "workers": report.workers, "samples": report.samples},
        "traceEvents": events,
    }


def _rank(rank: RankReport, origin: float) -> Iterator[dict[str, Any]]:
    pid = rank.rank
    yield _named("process_name", pid, 0, f"rank {pid}")
    yield _sorted(pid, pid)
    sends = lanes([each for each in rank.events if each.name in SENDS])
    # The work of a rank is sequential, so one lane is enough unless inaccurate clocks make intervals overlap.
    for index, lane in enumerate(lanes(main_track(rank))):
        tid = _WORK if index == 0 else _SENDS + len(sends) + index
        yield _named("thread_name", pid, tid, "work" if index == 0 else f"work {index + 1}")
        yield from (_slice(pid, tid, each, origin) for each in lane)
    for index, lane in enumerate(sends):
        yield _named("thread_name", pid, _SENDS + index, f"send {index + 1}")
        yield from (_slice(pid, _SENDS + index, each, origin) for each in lane)
    arrivals = [each for each in rank.events if each.name in POINTS]
    if arrivals:
        yield _named("thread_name", pid, _ARRIVALS, "arrivals")
    for each in arrivals:
        at = _microseconds(each.start - origin)
        yield {"ph": "i", "s": "t", "name": each.name, "pid": pid, "tid": _ARRIVALS, "ts": at, "args": _where(each)}


def _slice(pid: int, tid: int, each: Interval, origin: float) -> dict[str, Any]:
    return _complete(pid, tid, each.name, each.start, each.end, origin, _where(each))


def _complete(
    pid: int, tid: int, name: str, start: float, end: float, origin: float, args: dict[str, int]
) -> dict[str, Any]:
    at = _microseconds(start - origin)
    took = round(_microseconds(end - origin) - at, 3)
    return {"ph": "X", "cat": "fsd", "name": name, "pid": pid, "tid": tid, "ts": at, "dur": took, "args": args}


def _where(each: Interval) -> dict[str, int]:
    return {"layer": each.layer, "micro_batch": each.micro_batch}


def _named(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _sorted(pid: int, index: int) -> dict[str, Any]:
    return {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": index}}


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)
