"""`fsd cost` and `fsd prices`."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from fsd_inference.aws.clients import Clients
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.prediction import FunctionTime
from fsd_inference.rank_report import RankReport
from fsd_inference.run_report import RunReport
from fsd_inference.usage import Usage
from tests.support.cli import Fsd, entries, fsd_in
from tests.support.price_list import PRODUCTS, PriceList

REPORT = RunReport(
    channel="queue",
    workers=2,
    samples=50,
    layers=3,
    connections=96,
    wall_s=3.0004,
    launch_s=0.5,
    load_s=0.25,
    compute_s=0.125,
    peak_rss_bytes=1,
    row_sends=7,
    usage=Usage(
        Counter({"sns.publish": 4, "sqs.receive": 9, "s3.put": 6}),
        Counter(
            {"sns.publish": 4, "sns.publish.messages": 8, "sqs.receive": 9, "sqs.receive.messages": 12, "s3.put": 6}
        ),
        empty_polls=2,
        received_bytes=10**6,
    ),
    attempts=1,
    simd="avx2",
    ranks=[RankReport(0, started=100.0, ended=102.5), RankReport(1, started=100.5, ended=102.0)],
)


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return REPORT.save(tmp_path)


def test_a_report_reads_back(report: Path) -> None:
    assert RunReport.load(report) == RunReport.load(report.parent) == REPORT


def test_the_cost_of_a_report(fsd: Fsd, report: Path) -> None:
    said = fsd("cost", report, "--json").json()
    functions = [FunctionTime(1769, "x86_64", 4.0, 2), FunctionTime(512, "x86_64", 3.001, 1)]
    expected = run_cost(REPORT.usage, functions, load_prices(), samples=50)
    assert said["usd"] == pytest.approx(expected.usd)
    assert said["usd_per_sample"] == pytest.approx(expected.usd / 50)
    assert said["services"] == pytest.approx(expected.by_service())
    assert said["prices_of"] == "2026-11"
    shown = fsd("cost", report.parent).stdout
    assert shown.count("2026-11") == 3
    assert f"USD {expected.usd:#.4g}" in shown


def test_settings_change_the_cost(fsd: Fsd, report: Path) -> None:
    def usd(*flags: str) -> float:
        return float(fsd("cost", report, "--json", *flags).json()["usd"])

    whole = usd()
    assert usd("--publish-units", "message") == pytest.approx(whole + 4 * 5e-7)
    assert usd("--delivery", "paid") == pytest.approx(whole + 0.09e-3)
    assert usd("--queue-writes", "billed") == pytest.approx(whole + 12 * 4e-7)
    assert usd("--memory", "3538") == pytest.approx(whole + 4.0 * 1769 / 1024 * 1.66667e-5)
    assert usd("--coordinator-memory", "1024") == pytest.approx(whole + 3.001 * 0.5 * 1.66667e-5)
    assert usd("--architecture", "arm64") < whole
    assert usd("--storage", "express") == pytest.approx(whole - 6 * (5e-6 - 1.13e-6))


def test_a_users_prices_are_used(fsd: Fsd, report: Path, tmp_path: Path) -> None:
    mine = load_prices().to_json() | {"region": "mars-1", "date": "2031"}
    mine["prices"]["sqs.request"]["tiers"] = [{"from": 0, "usd": 1}]
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    said = fsd("cost", report, "--prices", tmp_path / "mine.json", "--json").json()
    assert (said["region"], said["prices_of"], said["services"]["SQS"]) == ("mars-1", "2031", 9)
    shown = fsd("prices", "show", "--prices", tmp_path / "mine.json")
    assert "USD, prices of mars-1, 2031" in shown.stdout


def test_a_serial_report_is_one_worker(fsd: Fsd, tmp_path: Path) -> None:
    value = REPORT.to_json() | {"ranks": [], "requests": {}, "billed_units": {}, "channel": "serial"}
    (tmp_path / "report.json").write_text(json.dumps(value))
    said = fsd("cost", tmp_path, "--json").json()
    assert said["services"]["Lambda"] == pytest.approx(3.001 * (1769 + 512) / 1024 * 1.66667e-5 + 2 * 2e-7)
    assert said["services"]["S3"] == 0


def test_the_papers_runs_beside_the_model(fsd: Fsd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FSD_SHARED", raising=False)
    said = fsd("cost", "--paper", "--json").json()
    assert len(said["rows"]) == 36
    assert sum(row["paper_usd"] is not None for row in said["rows"]) == 32
    assert said["largest_error"] < 0.01
    shown = fsd("cost", "--paper").stdout
    assert "largest error of any of 32 costs" in shown
    assert "2024-03" in shown
    assert shown.count("│ queue") + shown.count("│ object") == 36


def test_prices_show(fsd: Fsd) -> None:
    said = fsd("prices", "show")
    assert "USD, prices of us-east-1, 2026-11" in said.stdout
    assert "source 1: aws.amazon.com/lambda/pricing" in said.stdout
    assert fsd("prices", "show", "--json").json() == load_prices().to_json()


def test_prices_update_writes_a_file_or_none(
    fsd: Fsd, tmp_path: Path, aws_configuration: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_configuration.setenv("AWS_ACCESS_KEY_ID", "test")
    aws_configuration.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(Clients, "pricing", PriceList(PRODUCTS))
    said = fsd("prices", "update", "--region", "us-east-1", "-o", tmp_path / "mine.json")
    assert (said.code, said.stderr) == (0, "")
    assert load_prices(file=tmp_path / "mine.json").region == "us-east-1"
    failed = fsd("prices", "update", "--region", "mars-1", "-o", tmp_path / "other.json")
    assert failed.code == 2
    assert "0 products" in failed.error()
    assert entries(tmp_path) == {"mine.json"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": "many"}, "'samples' must be a whole number, not 'many'"),
        ({"requests": {"s3.get": "x"}}, "'requests.s3.get' must be a whole number"),
        ({"wall_s": -1}, "'wall_s' must be a number of seconds"),
        ({"ranks": [{"rank": 0, "started": 5}]}, "a rank of the report does not say when it started and ended"),
        ({"ranks": [{"rank": 0, "started": 5, "ended": 4}]}, "a rank of the report does not say when"),
        ({"samples": 0}, "at least 1 sample"),
        ({"billed_units": {}}, "count at least one billed unit a request"),
        ({"requests": {"pigeon.post": 1}}, "no price for requests of kind 'pigeon.post'"),
    ],
)
def test_a_wrong_report_is_one_line(fsd: Fsd, tmp_path: Path, change: dict[str, object], said: str) -> None:
    (tmp_path / "report.json").write_text(json.dumps(REPORT.to_json() | change))
    failed = fsd("cost", tmp_path)
    assert failed.code == 2
    assert said in failed.error()
