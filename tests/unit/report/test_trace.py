"""Traces in Perfetto's format: named tracks, ordered times, and slices that nest or do not overlap."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from typing import Any

import pytest

from fsd_inference.report.figures import run_figures
from fsd_inference.report.trace import trace
from tests.support.reports import made_up, rank_value


def by_track(events: list[dict[str, Any]]) -> dict[tuple[int, int], list[dict[str, Any]]]:
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append(event)
    return tracks


@pytest.mark.parametrize("workers", [1, 8, 200])
def test_slices_of_a_track_never_overlap(workers: int) -> None:
    report = made_up(workers)
    found = json.loads(json.dumps(trace(run_figures(report)), allow_nan=False))
    events = found["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "i"}
    assert all(event["ts"] >= 0 for event in events if event["ph"] != "M")
    tracks = by_track(events)
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert tracks.keys() <= named
    for slices in tracks.values():
        for one, other in itertools.pairwise(slices):
            assert one["ts"] + one["dur"] <= other["ts"] + 0.002  # rounded to nanoseconds
    assert {event["pid"] for event in events} == set(range(workers))


def test_every_event_is_there_once() -> None:
    report = made_up(3)
    events = trace(run_figures(report))["traceEvents"]
    names = [event["name"] for event in events if event["ph"] in {"X", "i"}]
    said = [name for rank in report.ranks for name, *_ in rank.events] + ["start"] * 3
    assert sorted(names) == sorted(said)
    (first,) = (e for e in events if e["name"] == "boundary" and e["pid"] == 2 and e["args"]["layer"] == 4)
    # Rank 0 was started 0.1 s before it said so; rank 2 began 0.1 s after it.
    assert first["ts"] == pytest.approx((0.1 + 0.1 + 0.8 + 4 * 0.1 + 0.06) * 1e6, abs=5)
    assert first["dur"] == pytest.approx(0.01e6, abs=5)


def test_clocks_that_go_back_still_make_tracks() -> None:
    value = rank_value(0, 1, 2)
    value["events"] += [["unpack", 1, 0, value["started"] + 0.81, value["started"] + 0.95]]
    tracks = by_track(trace(run_figures(made_up(1, ranks=[value])))["traceEvents"])
    for slices in tracks.values():
        for one, other in itertools.pairwise(slices):
            assert one["ts"] + one["dur"] <= other["ts"] + 0.002


def test_the_coordinator_has_a_track_of_its_own() -> None:
    report = made_up(2)
    began = (report.ranks[0].started or 0.0) - 2.0
    found = trace(run_figures(made_up(2, coordinators=[(began, began + 9.0)])))["traceEvents"]
    (coordinate,) = (event for event in found if event["name"] == "coordinate")
    assert (coordinate["pid"], coordinate["ts"], coordinate["dur"]) == (2, 0, pytest.approx(9e6))


def test_a_run_without_ranks_is_an_empty_trace() -> None:
    assert trace(run_figures(made_up(1, ranks=[])))["traceEvents"] == []
