"""Predicted counts of a run, compared with its own: all counts that do not depend on timing are predicted exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws import keeping
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.aws.stack import save_stack
from fsd_inference.config import RunSettings
from fsd_inference.cost.model import Billing, run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.sampling import sample_payloads
from fsd_inference.partitioning import load_plan, partition
from fsd_inference.report.pricing import price
from fsd_inference.units import usd_text
from fsd_inference.usage import Usage
from tests.support.runs import session

pytestmark = [pytest.mark.emulator, pytest.mark.usefixtures("aws_configuration")]

WORKERS, RANKS, BUCKETS = 3, 4, 2
NETWORK = fsd.random_network([96] * 7, connections=8, seed=5)
X = sparse.csr_array(np.random.default_rng(0).standard_normal((48, 96), np.float32))
TIMED = {"sqs.receive", "s3.get"}


@pytest.fixture(scope="module")
def stack(emulator_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    clients = Clients(emulator_url, emulated=True)
    settings = StackSettings(name="fsd-foreseen", ranks=RANKS, run_buckets=BUCKETS, purge_settle_s=0.0)
    made = create_stack(clients, settings)
    path = tmp_path_factory.mktemp("stack") / "stack.json"
    save_stack(made, path)
    yield path
    delete_stack(clients, made)
    clients.close()


def foreseen(shards: Path, channel: str, settings: RunSettings) -> Usage:
    _, plan = load_plan(shards)
    (payloads,) = sample_payloads(NETWORK, [plan], X, samples=X.shape[0], micro_batches=settings.micro_batches)
    if channel == "queue":
        return count_usage(plan, payloads, settings, "queue", purged=RANKS)
    return count_usage(plan, payloads, settings, "object", buckets=BUCKETS)


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_a_session_foresees_its_run_and_reports_both(stack: Path, tmp_path: Path, channel: str) -> None:
    with session(NETWORK, channel, stack, workers=WORKERS, partition="block", micro_batches=2) as distributed:
        predicted = distributed.predict(X)
        report = distributed.infer(X, predicted=predicted).report
    assert predicted is not None
    partition(NETWORK, tmp_path / "shards", workers=WORKERS, method="block")
    expected = foreseen(tmp_path / "shards", channel, RunSettings(workers=WORKERS, micro_batches=2))
    assert predicted.usage.frames == expected.frames == report.usage.frames
    assert predicted.usage.wire_bytes == pytest.approx(expected.wire_bytes, rel=0.01)
    for kind in expected.requests.keys() - TIMED - {"s3.delete"}:  # objects are spread by a hash
        assert predicted.usage.requests[kind] == expected.requests[kind], kind
    # A run of this host is simulated; what is received follows habits otherwise.
    assert predicted.usage.requests.total() == pytest.approx(expected.requests.total(), rel=0.2)
    assert [function.invocations for function in predicted.functions] == [WORKERS, 1]
    priced = price(report)
    assert priced.predicted is not None
    assert priced.metered is not None
    report.save(tmp_path / "run")
    page = " ".join((tmp_path / "run" / "report.html").read_text().split())
    assert "Cost and counts: predicted against metered" in page
    for usage in (predicted.usage, report.usage):
        assert f"{usage.requests['s3.put']:,}" in page
    for cost in (priced.predicted, priced.metered):
        assert usd_text(cost.usd) in page


@pytest.mark.parametrize(("micro_batches", "output"), [(1, "rows"), (3, "argmax")])
@pytest.mark.parametrize("channel", ["queue", "object"])
def test_what_is_sent_is_foreseen(stack: Path, tmp_path: Path, channel: str, micro_batches: int, output: str) -> None:
    partition(NETWORK, tmp_path / "shards", workers=WORKERS, method="block")
    settings = RunSettings(workers=WORKERS, branching=2, micro_batches=micro_batches, output=output)
    expected = foreseen(tmp_path / "shards", channel, settings)
    shards = tmp_path / "shards"
    with session(shards, channel, stack, branching=2, micro_batches=micro_batches, output=output) as distributed:
        counted = distributed.infer(X).report.usage
    assert expected.frames == counted.frames
    for name in ("wire_bytes", "body_bytes", "received_bytes"):  # but for rounding: micro-batches have a mean size
        assert getattr(expected, name) == pytest.approx(getattr(counted, name), rel=1e-3), name
    assert set(expected.requests) == set(counted.requests)
    for kind in counted.requests.keys() - TIMED:
        slack = 4 if kind == "s3.delete" else 0  # objects are spread over the folders that are swept by a hash
        assert abs(expected.requests[kind] - counted.requests[kind]) <= slack, kind
    for units in ("sns.publish", "sns.publish.messages", "sqs.receive.messages"):
        assert expected.billed_units[units] == counted.billed_units[units]
    if channel == "object":
        reads = [usage.requests["s3.get"] - usage.misses for usage in (expected, counted)]
        assert reads[0] == reads[1]
    prices, billing = load_prices(), Billing()
    lines = [
        {line.item: line.usd for line in run_cost(usage, [], prices, samples=X.shape[0], billing=billing).lines}
        for usage in (expected, counted)
    ]
    assert {item: lines[0][item] for item in lines[0].keys() - TIMED} == pytest.approx(
        {item: lines[1][item] for item in lines[1].keys() - TIMED}, rel=1e-3
    )


def test_renewals_of_a_lane_are_counted(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every_s = 0.1
    monkeypatch.setattr(keeping, "RENEW_S", every_s)
    partition(NETWORK, tmp_path / "shards", workers=WORKERS, method="block")
    once = foreseen(tmp_path / "shards", "queue", RunSettings(workers=WORKERS))
    with session(tmp_path / "shards", "queue", stack, delay_s=0.2) as distributed:
        report = distributed.infer(X).report
    renewals = report.usage.requests["s3.put"] - once.requests["s3.put"]
    assert 1 <= renewals <= report.wall_s / every_s
    assert report.usage.requests["s3.list"] == once.requests["s3.list"]
