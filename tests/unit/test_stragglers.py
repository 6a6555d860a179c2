"""Which ranks are stragglers: paces by the clock, the reports of made-up runs and those of the simulator."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.rank_report import LayerReport, RankReport
from fsd_inference.report.figures import run_figures
from fsd_inference.report.pricing import Priced
from fsd_inference.report.run_page import run_page
from fsd_inference.run_report import RunReport
from fsd_inference.stragglers import Pace, Paces, Straggler, find_stragglers
from tests.support.reports import made_up


def lockstep(compute_s: list[list[float]]) -> list[RankReport]:
    """The reports of ranks that wait for each other after each layer; `compute_s` has a row for each rank."""
    slowest = [max(column) for column in zip(*compute_s, strict=True)]
    return [
        RankReport(
            rank,
            started=1000.0,
            layers=tuple(LayerReport(own, wait_s=whole - own) for own, whole in zip(row, slowest, strict=True)),
        )
        for rank, row in enumerate(compute_s)
    ]


def test_a_slow_rank_is_found_from_where_it_became_slow() -> None:
    rows = [[0.2] * 100 for _ in range(6)]
    rows[5] = [0.2] * 40 + [0.82] * 60
    (found,) = find_stragglers(lockstep(rows))
    assert found.rank == 5
    assert 3 <= found.factor <= 4.11
    assert 20 <= found.layer <= 45  # seconds of both paces are compared
    text = str(Straggler(5, 4.13, 40))
    assert text == "rank 5 computes 4.1 times slower than the median of the other ranks since layer 40"


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([[0.2] * 100] * 6, "all are alike"),
        ([[0.2] * 100] * 5 + [[0.5] * 100], "not slow enough"),
        ([[0.2] * 100] * 5 + [[0.2] * 50 + [1.0] * 4 + [0.2] * 46], "not for long enough"),
        ([[0.2] * 100] * 2 + [[0.9] * 100] * 4, "most are slow"),
        ([[0.9] * 100], "alone"),
        ([], "nobody"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_others_are_no_stragglers(rows: list[list[float]], why: str) -> None:
    assert find_stragglers(lockstep(rows)) == [], why


def test_a_rank_that_waits_is_no_straggler() -> None:
    """It is slow, but others are waited for: all wait for frames most of the time."""
    reports = [
        RankReport(rank, started=0.0, layers=(LayerReport(0.5 if rank else 0.1, wait_s=2.0),) * 40) for rank in (0, 1)
    ]
    assert find_stragglers(reports) == []


@given(st.integers(2, 12), st.floats(5, 20), st.integers(0, 2**32 - 1))
def test_one_slow_rank_of_any_number_is_found(workers: int, factor: float, seed: int) -> None:
    draws = random.Random(seed)
    slow = draws.randrange(workers)
    layers = [0.5 * draws.random() + 0.3 for _ in range(40)]
    rows = [
        [layer * draws.uniform(0.9, 1.1) * (factor if rank == slow else 1.0) for layer in layers]
        for rank in range(workers)
    ]
    (found,) = find_stragglers(lockstep(rows))
    assert found.rank == slow
    assert found.factor == pytest.approx(factor, rel=0.4)  # paces are those of a few layers


def test_each_straggler_is_returned_once_while_the_run_goes_on() -> None:
    paces, found = Paces(5), []
    for second in range(60):
        for rank in range(5):
            slow = (rank == 3) or (rank == 4 and second >= 30)
            straggler = paces.note(Pace(second + rank / 10, rank, second, second * (0.95 if slow else 0.2)))
            found += [] if straggler is None else [straggler.rank]
    assert found == [3, 4]


def test_the_report_of_a_run_names_them() -> None:
    ranks = [each.to_json() for each in lockstep([[0.3] * 30, [0.3] * 30, [1.5] * 30])]
    report = made_up(3, 30, ranks=ranks)
    (found,) = report.to_json()["stragglers"]
    assert (found["rank"], found["factor"], found["layer"]) == (2, pytest.approx(5.0), 1)
    assert RunReport.from_json(report.to_json()).stragglers == report.stragglers
    page = run_page(run_figures(report), Priced(None, None, ()))
    assert "Rank 2 computes 5.0 times slower than the median of the other ranks since layer 1." in page
    assert "times slower" not in run_page(run_figures(made_up(3)), Priced(None, None, ()))
