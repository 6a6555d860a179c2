"""The record of a verification on AWS: its cost limit, its file and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsd_inference.errors import FileFormatError
from fsd_inference.report.verification import Comparison, StackNames, Verification, VerifiedRun
from fsd_inference.report.verification_page import save_verification, verification_page

STACK = StackNames("fsd", "us-east-1", ("fsd-coordinator",), ("t",), ("q0", "q1"))


def record(*runs: VerifiedRun, limit: float = 0.05) -> Verification:
    return Verification(STACK, limit, 1000.0, 1060.0, list(runs))


def done(predicted: float, counted: float | None) -> VerifiedRun:
    return VerifiedRun("queue", 2, predicted, "done", identical=True, counted_usd=counted)


@pytest.mark.parametrize(
    ("before", "allowed"),
    [
        (done(0.01, 0.03), True),
        (done(0.01, 0.031), False),  # what was counted matters, not what was predicted
        (done(0.031, None), False),  # an unknown cost is taken as predicted
        (VerifiedRun("queue", 2, 0.031, "failed", counted_usd=0.001), False),  # ranks that died did not report
        (VerifiedRun("queue", 2, 0.04, "skipped"), True),
    ],
)
def test_a_run_starts_only_if_its_prediction_fits_below_the_limit(before: VerifiedRun, allowed: bool) -> None:
    following = VerifiedRun("object", 2, 0.02)
    whole = record(before, following)
    assert whole.keep_limit(following) is allowed
    assert following.state == ("planned" if allowed else "skipped")
    assert allowed or "above the limit of 0.05" in str(following.note)


def test_only_complete_right_and_removed_is_good() -> None:
    assert record(done(0.01, 0.01)).is_good
    assert not record().is_good
    assert not record(VerifiedRun("queue", 2, 0.01, "done", identical=False)).is_good
    assert not record(done(0.01, 0.01), VerifiedRun("object", 2, 0.01, "skipped")).is_good
    left = record(done(0.01, 0.01))
    left.left = "a bucket is left"
    assert not left.is_good


def test_a_ratio_needs_both_figures() -> None:
    assert Comparison("s3.get", 4, 6).ratio == 1.5
    assert Comparison("s3.get", 0, 6).ratio is None
    assert Comparison("s3.get", 4, None).ratio is None


def test_the_file_gives_the_same_record(tmp_path: Path) -> None:
    run = done(0.01, 0.02)
    run.comparisons.append(Comparison("s3.get", 4, 6))
    whole = record(run, VerifiedRun("object", 2, 0.01, "failed", "no <b>answer</b>"))
    whole.totals = {"invocations": 5.0}
    whole.problem = "the command was interrupted"
    page = save_verification(whole, tmp_path / "out")
    read = json.loads((tmp_path / "out" / "verification.json").read_text())
    assert Verification.from_json(read) == whole
    html = page.read_text()
    for text in ("not passed", "s3.get", "1.5", "no &lt;b&gt;answer", "the command was interrupted", "0.05"):
        assert text in html
    read["runs"][0]["state"] = "good"
    with pytest.raises(FileFormatError, match=r"runs\.state"):
        Verification.from_json(read)


def test_a_page_without_a_stack() -> None:
    assert "none was made" in verification_page(Verification(None, 0.05, 0.0, 0.0))
