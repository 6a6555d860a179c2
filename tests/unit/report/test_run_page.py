"""The page of a run: complete, self-contained, and explicit about missing data."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fsd_inference.markup import Markup, coordinate, tag
from fsd_inference.prediction import FunctionTime, Prediction
from fsd_inference.report.figures import run_figures
from fsd_inference.report.pricing import price
from fsd_inference.report.run_page import run_page
from fsd_inference.report.tracks import activity
from fsd_inference.usage import Usage
from tests.support.reports import made_up, rank_value

VOID = {"meta", "br", "!doctype"}


class Checked(HTMLParser):
    """Holds that every element is closed, and gathers the text and what might be loaded."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href", "data", "srcset", "action"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text.append(data)


def of(report: Any) -> tuple[str, str]:
    html = run_page(run_figures(report), price(report))
    checked = Checked(html)
    assert checked.loads == []
    assert "url(" not in html
    assert "://" not in html
    return html, " ".join(" ".join(checked.text).split())


@pytest.mark.parametrize("workers", [1, 8, 200, 1000])
def test_a_page_is_whole_and_loads_nothing(workers: int) -> None:
    html, text = of(made_up(workers, layers=4))
    assert f"{workers:,} worker" in text
    assert html.count("<svg") == (5 if workers > 1 else 4)
    assert ("are drawn, evenly spaced" in text) == (workers > 64)
    assert ("sums of" in text) == (workers > 64)
    assert "Nothing was sent." in text if workers == 1 else "largest pair" in text
    assert f"The shortest {7 * workers:,} intervals and arrivals of all ranks were not reported individually" in text
    assert len(html) < 700_000


def test_many_events_and_layers_stay_drawable() -> None:
    html, text = of(made_up(64, layers=480))
    assert "Only the longest 937 intervals of each rank are drawn." in text
    assert "each bar is the mean of 3 layers" in text
    assert len(html) < 3_000_000


def test_names_are_escaped() -> None:
    evil = "</title></script><script>alert('&\")</script>"
    ranks = [rank_value(0, 2, 2), rank_value(1, 2, 2)]
    ranks[0]["events"][1][0] = evil
    ranks[1]["error"] = {"message": evil}
    ranks[1]["events_left_out"] = {evil: [1, 2.0]}
    report = made_up(
        2,
        layers=2,
        ranks=ranks,
        channel=evil,
        simd=evil,
        error={"type": evil, "message": evil, "rank": evil, "layer": 3, "operation": evil},
        usage=Usage(type(Usage().requests)({evil: 1})),
    )
    html, text = of(report)
    assert html.count("<script>") == html.count("</script>") == 1
    assert "alert('&\")" in text  # as text
    assert "no price for requests" in text


def test_a_failed_run_says_why() -> None:
    error = {
        "type": "StallError",
        "message": "no frame from rank 3",
        "rank": 3,
        "layer": 1,
        "operation": "receive",
        "retryable": True,
    }
    ranks = [rank_value(0, 4, 2), rank_value(2, 4, 1) | {"error": {"message": "stopped by rank 3"}}]
    _, text = of(made_up(4, layers=2, ranks=ranks, error=error))
    assert "This run failed no frame from rank 3 type StallError rank 3 layer 1 operation receive" in text
    assert "2 of 4 ranks could still report." in text
    assert "Rank 2: stopped by rank 3" in text
    assert "2 ranks did not report to which ranks they sent." in text
    _, text = of(made_up(4, ranks=[], error={}))
    assert "The report gives no reason." in text
    assert "No rank could report." in text


def test_a_serial_run_has_no_ranks() -> None:
    _, text = of(made_up(1, ranks=[], channel="serial", usage=Usage(), launch_s=0.0))
    assert text.count("A serial run has no ranks.") == 3
    assert "Cost $" in text


@pytest.mark.parametrize(("memory_mb", "is_told"), [(10_240, False), (32_768, True)])
def test_the_time_of_managed_instances_is_said_not_to_be_counted(memory_mb: int, is_told: bool) -> None:
    _, text = of(made_up(4, memory_mb=memory_mb))
    assert (
        f"Workers of {memory_mb:,} MB run on Lambda Managed Instances, which are paid by the month" in text
    ) is is_told


@pytest.mark.parametrize("missing", ["events", "events_left_out", "sent_to", "layers", "usage", "started"])
def test_reports_of_older_releases_open_with_a_note(missing: str) -> None:
    ranks = [{name: value for name, value in rank_value(r, 2, 3).items() if name != missing} for r in range(2)]
    _, text = of(made_up(2, layers=3, ranks=ranks))
    said = {
        "events": "No rank reported its intervals: the run is of an older release",
        "sent_to": "No rank reported to which ranks it sent",
        "layers": "No rank reported its layers",
        "started": "The cost is unknown: a rank of the report does not say when it started and ended.",
    }
    assert said.get(missing, "Timeline") in text


def test_predicted_beside_metered() -> None:
    usage = made_up(2).usage
    foreseen = Usage(usage.requests + usage.requests, usage.billed_units + usage.billed_units, wire_bytes=6000)
    functions = (FunctionTime(1769, "x86_64", 9.0, 2),)
    _, text = of(made_up(2, predicted=Prediction(foreseen, functions, 1.8), memory_mb=1769))
    assert "Cost and counts: predicted against metered" in text
    assert "sns.publish 80 40 +100.0%" in text
    assert "frame bytes 6,000 12,000 -50.0%" in text
    assert "wall time 1.8 s 3.6 s -50.0%" in text
    assert "No prediction was made" not in text
    _, text = of(made_up(2, predicted=Prediction(foreseen)))
    assert "The time of functions was not predicted." in text
    assert "wall time 1.8" not in text
    _, text = of(made_up(2))
    assert "No prediction was made before this run." in text


def test_a_few_high_bars_do_not_hide_the_others() -> None:
    ranks = [rank_value(0, 1, 40)]
    ranks[0]["layers"][1]["wait_s"] = 9.0
    html, text = of(made_up(1, layers=40, ranks=ranks))
    assert "Time of each layer, mean rank: 1 bar is cut off; the largest is 9,050 ms." in text
    assert html.count('class="cut"') == 1


def test_markup() -> None:
    assert tag("p", "a<b", Markup("<i>c</i>"), 3, class_="x", data_y='"q"') == (
        '<p class="x" data-y="&quot;q&quot;">a&lt;b<i>c</i>3</p>'
    )
    assert tag("p", id=None) == "<p></p>"
    assert [coordinate(each) for each in (1.0, 0.126, 100.0, 0.001, -0.0)] == ["1", "0.13", "100", "0", "0"]


def test_the_timeline_is_drawn_to_scale() -> None:
    report = made_up(1, layers=2)
    html, _ = of(report)
    left, scale = (float(re.findall(rf'data-{name}="([\d.]+)"', html)[0]) for name in ("left", "scale"))
    (steps,) = re.findall(r'<path d="([^"]*)" class="a-compute"', html)
    drawn = [(float(x), float(width)) for x, width in re.findall(r"M([\d.]+) 0h([\d.]+)", steps)]
    figures = run_figures(report)
    computed = [each for each in figures.ranks[0].events if activity(each) == "compute"]
    assert len(drawn) == len(computed) == 4
    for (x, width), each in zip(drawn, computed, strict=True):
        assert (x - left) / scale == pytest.approx(each.start - figures.start, abs=1e-4)
        assert width / scale == pytest.approx(each.end - each.start, abs=1e-4)
