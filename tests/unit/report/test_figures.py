"""Figures of reports: validated before drawing; fields that earlier releases lack may be missing."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from fsd_inference.errors import FileFormatError
from fsd_inference.prediction import FunctionTime, Prediction
from fsd_inference.rank_report import Interval
from fsd_inference.report import Report
from fsd_inference.report.axes import figure, ticks
from fsd_inference.report.figures import run_figures
from fsd_inference.report.matrix import matrix
from fsd_inference.report.tracks import activity, lanes, main_track
from fsd_inference.usage import Usage
from tests.support.reports import BEGAN, made_up, rank_value


def test_a_run_is_gathered() -> None:
    figures = run_figures(made_up(8, layers=5))
    assert [rank.rank for rank in figures.ranks] == list(range(8))
    assert figures.start == pytest.approx(BEGAN - 0.1)
    assert figures.end == pytest.approx(BEGAN + 0.05 * 7 + 0.8 + 0.5 + 0.1)
    assert figures.wait_s == pytest.approx(0.25)
    assert [layer.bytes for layer in figures.layers] == [8 * (1000 + 10 * i) for i in range(5)]
    assert figures.layers[3].requests == 16
    assert figures.layers[3].compute_s == pytest.approx(0.035)


def test_every_slice_keeps_its_place() -> None:
    (rank,) = run_figures(made_up(1, layers=3)).ranks
    assert [each.name for each in main_track(rank)][:4] == ["start", "load", "wait", "unpack"]
    assert {activity(each) for each in rank.events} == {"load", "wait", "unpack", "compute", "pack", "send", "receive"}


def test_lanes_never_overlap() -> None:
    spans = ((0.0, 5.0), (1.0, 2.0), (2.0, 11.0), (5.0, 6.0))
    slices = [Interval("send", 0, 0, start, end) for start, end in spans]
    dealt = lanes(slices)
    assert len(dealt) == 2
    for lane in dealt:
        assert all(one.end <= other.start for one, other in itertools.pairwise(lane))
    assert sorted(each for lane in dealt for each in lane) == sorted(slices)


@pytest.mark.parametrize(
    ("workers", "most", "size", "block"), [(8, 64, 8, 1), (200, 64, 50, 4), (65, 64, 33, 2), (3, 2, 2, 2)]
)
def test_the_matrix_holds_every_byte(workers: int, most: int, size: int, block: int) -> None:
    report = made_up(workers)
    found = matrix(run_figures(report), most)
    assert found is not None
    assert (len(found.cells), found.block) == (size, block)
    sent = {(r.rank, target): size for r in report.ranks for target, _, size in r.sent_to or ()}
    assert found.total == sum(sent.values())
    assert found.cells[1][0] == sum(n for (s, t), n in sent.items() if s // block == 1 and t // block == 0)
    assert (
        found.largest
        == max(max(row) for row in found.cells)
        == found.cells[found.largest_pair()[0]][found.largest_pair()[1]]
    )


def test_matrix_names() -> None:
    found = matrix(run_figures(made_up(7)), 3)
    assert found is not None
    assert [found.name(i) for i in range(3)] == ["ranks 0-2", "ranks 3-5", "rank 6"]


def test_ranks_are_sampled_evenly() -> None:
    figures = run_figures(made_up(200, layers=1))
    shown = [rank.rank for rank in figures.sampled(64)]
    assert len(set(shown)) == 64
    assert (shown[0], shown[-1]) == (0, 199)
    assert len(figures.sampled(200)) == 200


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": [["wait", 0, 0, 1.0]]}, "'ranks[1].events[0]' must be a name, two whole numbers and two times"),
        ({"events": [["wait", 0, 0, 2.0, 1.0]]}, "'ranks[1].events[0]' ends before it starts"),
        (
            {"events": [["wait", 0, "x", 1.0, 2.0]]},
            "'ranks[1].events[0]' must be a name, two whole numbers and two times",
        ),
        ({"sent_to": [[1, 2]]}, "'ranks[1].sent_to[0]' must be three whole numbers"),
        ({"layers": [5]}, "ranks[1].layers[0] must be a JSON object"),
        ({"layers": [{"bytes": "many"}]}, "'ranks[1].layers[0].bytes' must be a whole number"),
        ({"rank": 0}, "must have different ranks below 2"),
        ({"rank": 9}, "must have different ranks below 2"),
        ({"wait_s": -1.0}, "'ranks[1].wait_s' must be a number of seconds"),
        ({"events_left_out": {"wait": 3}}, "'ranks[1].events_left_out.wait' must be a whole number and seconds"),
    ],
)
def test_what_makes_no_sense_is_named(change: dict[str, Any], said: str) -> None:
    ranks = [rank_value(0, 2, 3), rank_value(1, 2, 3) | change]
    with pytest.raises(FileFormatError) as caught:
        run_figures(made_up(2, ranks=ranks))
    assert said in str(caught.value)


def test_a_report_reads_back_with_all_that_is_new(tmp_path: Path) -> None:
    predicted = Prediction(Usage(wire_bytes=5), (FunctionTime(1769, "arm64", 2.5, 3),), 4.0)
    report = made_up(
        2,
        memory_mb=512,
        replicas=1,
        coordinators=[(1.0, 2.5)],
        predicted=predicted,
        error={"type": "StallError", "message": "x"},
    )
    report.save(tmp_path)
    assert Report.load(tmp_path) == report


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"coordinators": [[1.0]]}, "'coordinators' must be pairs of times"),
        ({"coordinator": [1.0]}, "'coordinators' must be pairs of times"),
        ({"predicted": {"functions": []}}, "'predicted.usage' is missing"),
        ({"predicted": {"usage": {}, "functions": [{"memory_mb": "x"}]}}, "'predicted.functions[0].memory_mb' must be"),
        ({"memory_mb": "big"}, "'memory_mb' must be a whole number"),
    ],
)
def test_a_wrong_report_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "report.json").write_text(json.dumps(made_up(1).to_json() | change))
    with pytest.raises(FileFormatError) as caught:
        Report.load(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("largest", [1e-9, 0.37, 1, 7, 119, 1e6, 123456789])
def test_ticks_are_round_and_few(largest: float) -> None:
    marks = ticks(largest)
    assert marks[0] == 0
    assert largest / 2.51 <= marks[-1] <= largest * 1.001
    assert 3 <= len(marks) <= 7
    assert ticks(0) == [0]
    assert [figure(each) for each in ticks(0.3)] == ["0", "0.05", "0.1", "0.15", "0.2", "0.25", "0.3"]
