"""Log lines and metrics of functions: one JSON object a line, each written completely."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest

from fsd_inference.aws.handlers.logs import NAMESPACE, Log
from fsd_inference.rank_report import RankReport
from fsd_inference.usage import Usage

REPORT = RankReport(
    3,
    started=10.0,
    ended=12.5,
    compute_s=1.0,
    wait_s=0.5,
    load_s=0.25,
    peak_rss_bytes=1000,
    usage=Usage(Counter({"sns.publish": 3, "s3.get": 4}), wire_bytes=77),
)


def test_a_line_says_where_it_comes_from(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0")
    Log(run="r", attempt=1, rank=3).line("damaged\nshard", level="ERROR", step=7)
    (line,) = capsys.readouterr().out.splitlines()
    value = json.loads(line)
    assert value.pop("time") > 0
    assert value == {
        "level": "ERROR",
        "message": "damaged\nshard",
        "run": "r",
        "attempt": 1,
        "rank": 3,
        "step": 7,
        "trace": "1-5759e988-bd862e3fe1be46a994272793",
    }


def test_without_a_trace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    Log().line("rank begins")
    assert json.loads(capsys.readouterr().out)["trace"] is None


def test_metrics_have_the_stack_and_the_channel_as_dimensions_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Log(run="r", attempt=1, rank=3).rank_metrics("fsd", "queue", REPORT)
    value = json.loads(capsys.readouterr().out)
    (definition,) = value["_aws"]["CloudWatchMetrics"]
    assert definition["Namespace"] == NAMESPACE
    assert definition["Dimensions"] == [["Stack", "Channel"]]  # each further value would be a metric that is billed
    assert (value["Stack"], value["Channel"], value["run"], value["rank"]) == ("fsd", "queue", "r", 3)
    metrics = {metric["Name"]: value[metric["Name"]] for metric in definition["Metrics"]}
    assert metrics == {
        "RankSeconds": 2.5,
        "ComputeSeconds": 1.0,
        "WaitSeconds": 0.5,
        "LoadSeconds": 0.25,
        "Requests": 7,
        "WireBytes": 77,
        "PeakMemory": 1000,
        "Errors": 0,
    }
    assert isinstance(value["_aws"]["Timestamp"], int)


def test_without_metrics_the_log_keeps_the_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(run="r", attempt=1, rank=3)
    log.rank_metrics("fsd", "queue", REPORT)
    with_metrics = json.loads(capsys.readouterr().out)
    monkeypatch.setenv("FSD_METRICS", "false")
    log.rank_metrics("fsd", "queue", REPORT)
    without = json.loads(capsys.readouterr().out)
    del with_metrics["_aws"]
    assert without == with_metrics


@pytest.mark.parametrize(("metrics", "kilobytes"), [("true", 1.4), ("false", 0.9)])
def test_a_worker_logs_as_much_as_the_cost_model_says(
    metrics: str, kilobytes: float, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSD_METRICS", metrics)
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793")
    log = Log(run="a" * 32, attempt=0, rank=12, request="8f5b7c1e-1b2a-4c3d-9e4f-0123456789ab")
    report = replace(REPORT, compute_s=1 / 3, wait_s=1 / 3, load_s=1 / 3, ended=12.512345, peak_rss_bytes=10**8)
    log.line("rank begins", starter=2, channel="queue", workers=16)
    log.rank_metrics("fsd-sparse", "queue", report)
    log.line("rank is done", seconds=2.345)
    assert len(capsys.readouterr().out) == pytest.approx(1000 * kilobytes, rel=0.05)
