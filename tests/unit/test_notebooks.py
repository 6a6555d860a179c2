"""What notebooks show of networks, answers, reports and advice: escaped tables that load and run nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import fsd_inference as fsd
from fsd_inference.forecast.options import OPTION_COLUMNS
from tests.support.reports import made_up

EVIL = "<script>alert('&')</script>"


class Cells(HTMLParser):
    """Holds that there are closed elements of tables only, and gathers the rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in {"table", "caption", "tr", "th", "td"}
        assert [name for name, _ in attrs] in ([], ["style"])
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1][-1] += data


def facts(value: Any) -> dict[str, str]:
    return {row[0]: row[1] for row in Cells(value._repr_html_()).rows}


def test_a_network() -> None:
    layer = fsd.Layer(np.eye(3), 0)
    network = fsd.Network([layer, layer], name=EVIL, labels=[EVIL, "b", "c"], output=fsd.OutputFunction("top_k", 2))
    assert Cells(network._repr_html_()).caption == f"Network: {EVIL}"
    assert facts(network) == {
        "layers": "2, 3 wide; 3 features, 3 outputs",
        "output function": "top_k of 2",
        "labels": f"{EVIL}, b, c",
    }
    assert set(facts(fsd.Network([layer]))) == {"layers"}


@pytest.mark.parametrize(
    ("function", "output", "says"),
    [
        (None, "rows", "2 samples x 3 outputs, 3 not zero"),
        (fsd.OutputFunction("top_k", 2), "rows", "2 samples x 2 labels"),
        (None, "argmax", "2 labels"),
    ],
)
def test_an_answer_and_its_report(function: fsd.OutputFunction | None, output: str, says: str) -> None:
    network = fsd.Network([fsd.Layer(np.eye(3), 0)], output=function)
    with fsd.Session(network, output=output) as session:
        answer = session.infer([[1, 2, 3], [0, 0, 0]])
    shown = facts(answer)
    assert shown["output"] == says
    assert shown["alive"] == "1 of 2 samples have an output > 0"
    assert shown["wall time"] == facts(answer.report)["wall time"] == dict(answer.report.summary())["wall time"]
    assert Cells(answer.report._repr_html_()).caption == "Run: serial, 1 worker, 2 samples"


def test_a_report_of_ranks() -> None:
    assert {"waiting", "exchanged", "requests"} <= set(facts(made_up(workers=3)))


def test_advice() -> None:
    advice = fsd.advise(fsd.random_network([64, 48, 32], connections=8), fsd.Question(1000))
    shown = Cells(advice._repr_html_())
    assert shown.caption == advice.title
    assert shown.rows[0] == list(OPTION_COLUMNS)
    assert [row[0] for row in shown.rows[1:16]] == [option.name for option in advice.options[:15]]
    assert shown.rows[-1][0] == f"and {len(advice.options) - 15:,} more"
