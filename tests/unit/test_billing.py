"""Comparison of a verification with CloudWatch's metrics, through boto3's client with stubbed answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from fsd_inference.aws.clients import Clients
from fsd_inference.errors import SettingError, StackError
from fsd_inference.report.verification import Comparison, StackNames, Verification, VerifiedRun
from fsd_inference.report.verification_page import save_verification
from fsd_inference.session.billing import compare_bill
from tests.support.cli import fsd_in

STACK = StackNames("fsd", "eu-west-1", ("fsd-coordinator", "fsd-worker"), ("t",), ("q0", "q1"))
TOTALS = {"invocations": 6.0, "function_s": 3.0, "sns_units": 20.0, "empty_receives": 4.0}
SERVED = [  # namespace, metric, dimension, and the resources with their data points
    ("AWS/Lambda", "Invocations", "FunctionName", {"fsd-coordinator": [2.0], "fsd-worker": [3.0, 1.0]}),
    ("AWS/Lambda", "Duration", "FunctionName", {"fsd-coordinator": [2000.0], "fsd-worker": [1600.0]}),
    ("AWS/SNS", "NumberOfMessagesPublished", "TopicName", {"t": [20.0]}),
    ("AWS/SQS", "NumberOfEmptyReceives", "QueueName", {"q0": [1.0], "q1": []}),
]


@pytest.fixture
def client() -> Iterator[Any]:
    made = boto3.Session("test", "test", region_name="eu-west-1").client("cloudwatch")
    yield made
    made.close()


def record() -> Verification:
    run = VerifiedRun("queue", 2, 0.01, "done", identical=True, counted_usd=0.01)
    return Verification(STACK, 0.05, 1000.0, 1210.0, [run], dict(TOTALS))


def serve(stubber: Stubber) -> None:
    for namespace, name, dimension, resources in SERVED:
        for resource, points in resources.items():
            expected = {
                "Namespace": namespace,
                "MetricName": name,
                "Dimensions": [{"Name": dimension, "Value": resource}],
                "StartTime": datetime.fromtimestamp(900, UTC),  # whole five minutes
                "EndTime": datetime.fromtimestamp(1500, UTC),
                "Period": 300,
                "Statistics": ["Sum"],
            }
            answer = {"Label": name, "Datapoints": [{"Sum": point} for point in points]}
            stubber.add_response("get_metric_statistics", answer, expected)


def test_sums_of_resources_beside_the_runs_counts(client: Any) -> None:
    with Stubber(client) as stubber:
        serve(stubber)
        whole = record()
        assert compare_bill(whole, client) is None
        stubber.assert_no_pending_responses()
    assert whole.bill == [
        Comparison("invocations", 6.0, 6.0),
        Comparison("function time without init, s", 3.0, 3.6),
        Comparison("SNS messages (the runs count units of 64 KiB)", 20.0, 20.0),
        Comparison("empty SQS receives", 4.0, 1.0),
    ]


def test_a_missing_permission_is_one_sentence_and_no_bill(client: Any) -> None:
    whole = record()
    with Stubber(client) as stubber:
        stubber.add_client_error("get_metric_statistics", "AccessDenied", "no", 403)
        assert "must allow cloudwatch:GetMetricStatistics" in str(compare_bill(whole, client))
    assert whole.bill == []


def test_an_answer_that_fails_is_an_error(client: Any) -> None:
    with Stubber(client) as stubber:
        stubber.add_client_error("get_metric_statistics", "InternalServiceFault", "broken", 500)
        with pytest.raises(StackError, match="cannot read AWS/Lambda Invocations of fsd-coordinator"):
            compare_bill(record(), client)


def test_nothing_to_compare(client: Any) -> None:
    with pytest.raises(SettingError, match="nothing was run"):
        compare_bill(Verification(STACK, 0.05, 0.0, 0.0), client)


def test_the_command_adds_the_bill_to_file_and_page(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_verification(record(), tmp_path)
    monkeypatch.setattr(Clients, "metrics", property(lambda _: client))
    with Stubber(client) as stubber:
        serve(stubber)
        said = fsd_in(capsys)("verify-aws", "--bill", "-o", tmp_path, "--json")
    assert said.code == 0, said.stderr
    assert said.json()["bill"][1] == {"what": "function time without init, s", "runs": 3.0, "cloudwatch": 3.6}
    assert len(json.loads((tmp_path / "verification.json").read_text())["bill"]) == 4
    assert "CloudWatch" in (tmp_path / "verification.html").read_text()
