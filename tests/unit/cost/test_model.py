"""The cost model: examples computed by hand, properties, and the paper's figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.cost.model import PAPER_BILLING, Billing, Cost, run_cost
from fsd_inference.cost.paper import compare, paper_prices, paper_runs
from fsd_inference.cost.prices import load_prices
from fsd_inference.errors import SettingError
from fsd_inference.prediction import FunctionTime, MicrovmTime
from fsd_inference.usage import Usage

PRICES = load_prices()
KINDS = (
    "sns.manage",
    "sqs.manage",
    "sqs.receive",
    "sqs.delete",
    "sqs.purge",
    "s3.get",
    "s3.put",
    "s3.head",
    "s3.list",
    "s3.delete",
)
BILLINGS = [
    Billing(units, delivery, writes, storage)
    for units in ("batch", "message")
    for delivery in ("free", "paid")
    for writes in ("free", "billed")
    for storage in ("standard", "express")
]


def cost(usage: Usage, *functions: FunctionTime, **more: Any) -> Cost:
    return run_cost(usage, functions, PRICES, samples=100, **more)


def counted(**requests: int) -> Usage:
    counts = Counter({kind.replace("_", "."): count for kind, count in requests.items()})
    return Usage(counts, counts.copy())


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    requests = Counter({kind: draw(st.integers(0, 10**6)) for kind in (*KINDS, "sns.publish")})
    units = Counter({kind: count + draw(st.integers(0, 10**6)) for kind, count in requests.items()})
    units["sns.publish.messages"] = units["sns.publish"] + draw(st.integers(0, 10**6))
    units["sqs.receive.messages"] = draw(st.integers(1, 10**6))
    return Usage(requests, units, body_bytes=draw(st.integers(0, 10**12)), received_bytes=draw(st.integers(0, 10**12)))


@st.composite
def times(draw: st.DrawFn) -> FunctionTime:
    architecture = draw(st.sampled_from(["x86_64", "arm64"]))
    return FunctionTime(
        draw(st.integers(128, 10240)), architecture, draw(st.floats(0, 1e6)), draw(st.integers(0, 10**4))
    )


def test_the_time_of_managed_instances_is_not_paid_by_the_run() -> None:
    common, managed = (cost(Usage(), FunctionTime(memory_mb, "x86_64", 50.0, 2)) for memory_mb in (10_240, 10_241))
    assert managed.usd == pytest.approx(2 * 0.2e-6)
    assert common.usd == pytest.approx(managed.usd + 10 * 50 * 0.0000166667)


def test_each_service_by_hand() -> None:
    usage = counted(
        sqs_receive=1000, sqs_purge=8, sqs_delete=2, s3_get=50, s3_head=10, s3_put=20, s3_list=4, s3_delete=3
    )
    usage.requests["sns.publish"] = 100
    usage.billed_units["sns.publish"], usage.billed_units["sns.publish.messages"] = 120, 300
    usage.billed_units["sqs.receive.messages"] = 700
    usage.received_bytes = 2 * 10**9
    function = FunctionTime(2048, "x86_64", 10.0, 9)
    found = cost(usage, function)
    assert found.by_service() == {
        "Lambda": pytest.approx(20 * 1.66667e-5 + 9 * 2e-7),
        "SNS": pytest.approx(120 * 5e-7),
        "SQS": pytest.approx(1010 * 4e-7),
        "S3": pytest.approx(24 * 5e-6 + 60 * 4e-7),
    }
    assert found.usd == pytest.approx(sum(found.by_service().values()))
    assert found.usd_per_sample == pytest.approx(found.usd / 100)
    assert (found.region, found.date) == ("us-east-1", "2026-11")
    paper_way = cost(usage, function, billing=PAPER_BILLING).by_service()
    assert paper_way == found.by_service() | {"SNS": pytest.approx(120 * 5e-7 + 2 * 0.09)}
    dearest = cost(usage, function, billing=Billing("message", "paid", "billed")).by_service()
    assert dearest["SNS"] == pytest.approx(300 * 5e-7 + 2 * 0.09)
    assert dearest["SQS"] == pytest.approx((1010 + 700) * 4e-7)


def test_express_bills_bytes_both_ways() -> None:
    usage = counted(s3_get=50, s3_put=20)
    usage.body_bytes, usage.received_bytes = 10**9, 3 * 10**9
    found = cost(usage, billing=Billing(storage="express")).by_service()["S3"]
    assert found == pytest.approx(50 * 3e-8 + 20 * 1.13e-6 + 0.0032 + 3 * 0.0006)


def test_both_architectures_have_their_price() -> None:
    found = cost(Usage(), FunctionTime(1024, "x86_64", 100, 1), FunctionTime(1024, "arm64", 100, 1))
    assert found.usd == pytest.approx(100 * (1.66667e-5 + 1.33334e-5) + 2 * 2e-7)


def test_invocations_are_not_billed_twice() -> None:
    function = FunctionTime(1024, "x86_64", 1, 8)
    assert cost(counted(lambda_invoke=8), function) == cost(Usage(), function)


@given(usages(), times(), st.sampled_from(BILLINGS))
def test_a_bill_is_the_sum_of_its_lines(usage: Usage, function: FunctionTime, billing: Billing) -> None:
    found = cost(usage, function, billing=billing)
    assert found.usd == pytest.approx(sum(line.usd for line in found.lines))
    assert found.usd == pytest.approx(sum(found.by_service().values()))
    assert all(line.usd >= 0 and line.quantity > 0 for line in found.lines)


@given(usages(), usages(), times(), times(), st.sampled_from(BILLINGS))
def test_costs_add_up(one: Usage, other: Usage, first: FunctionTime, second: FunctionTime, billing: Billing) -> None:
    # A run that publishes gets its bytes from SNS, one that does not from S3: only runs of a kind add up.
    one.requests["sns.publish"] += 1
    other.requests["sns.publish"] += 1
    for usage in (one, other):
        usage.billed_units["sns.publish"] += 1
        usage.billed_units["sns.publish.messages"] += 1
    apart = cost(one, first, billing=billing).usd + cost(other, second, billing=billing).usd
    assert cost(one + other, first, second, billing=billing).usd == pytest.approx(apart)


@given(usages(), st.sampled_from([*KINDS, "sns.publish"]), st.integers(1, 1000), st.sampled_from(BILLINGS))
def test_more_requests_never_cost_less(usage: Usage, kind: str, more: int, billing: Billing) -> None:
    usage.requests["sns.publish"] += 1
    usage.billed_units["sns.publish"] += 1
    usage.billed_units["sns.publish.messages"] += 1
    added = counted(**{kind.replace(".", "_"): more})
    if kind == "sns.publish":
        added.billed_units["sns.publish.messages"] = more
    assert cost(usage + added, billing=billing).usd >= cost(usage, billing=billing).usd


@given(usages(), times())
def test_the_default_reading_is_the_cheapest(usage: Usage, function: FunctionTime) -> None:
    standard = [billing for billing in BILLINGS if billing.storage == "standard"]
    assert cost(usage, function).usd == min(cost(usage, function, billing=billing).usd for billing in standard)


def test_what_the_month_has_used_moves_the_tiers() -> None:
    usage = counted(sqs_receive=10**6)
    assert cost(usage).usd == pytest.approx(0.40)
    assert cost(usage, month={"sqs.request": 250e9}).usd == pytest.approx(0.24)
    halves = cost(counted(sqs_receive=10**6, sqs_purge=10**6), month={"sqs.request": 100e9 - 10**6}).usd
    assert halves == pytest.approx(0.40 + 0.30)


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (counted(dynamodb_query=1), "no price for requests of kind 'dynamodb.query'"),
        (Usage(Counter({"s3.get": 5}), Counter({"s3.get": 4})), "5 requests but 4 billed units of 's3.get'"),
        (Usage(Counter({"sns.publish": 5}), Counter({"sns.publish": 5})), "0 billed units of 'sns.publish.messages'"),
        (
            Usage(Counter({"sns.publish": 5}), Counter({"sns.publish": 5, "sns.publish.messages": 5})),
            "no 'sqs.receive.messages', the messages that SNS wrote into queues",
        ),
    ],
)
def test_what_cannot_be_priced_is_an_error(usage: Usage, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        cost(usage, billing=Billing(publish_units="message", queue_writes="billed"))


def test_nonsense_is_refused() -> None:
    with pytest.raises(SettingError, match="at least 1 sample"):
        run_cost(Usage(), [], PRICES, samples=0)
    with pytest.raises(SettingError, match="publish_units must be batch or message, not 'frame'"):
        Billing(publish_units="frame")
    for wrong in ({"seconds": -1.0}, {"memory_mb": 0}, {"invocations": -1}, {"architecture": "z80"}):
        with pytest.raises(SettingError):
            replace(FunctionTime(1024, "x86_64", 1.0, 1), **wrong)


def test_the_paper_has_all_its_rows() -> None:
    runs = paper_runs()
    assert len(runs) == 36
    assert sum(run.total_usd is not None for run in runs) == 32
    assert paper_prices().region == "eu-west-1"


@pytest.mark.parametrize(
    "run",
    [run for run in paper_runs() if run.total_usd is not None],
    ids=lambda r: f"{r.channel}-{r.neurons}-{r.workers}-{r.partition}",
)
def test_the_model_returns_the_papers_costs(run: Any) -> None:
    found = compare(run)
    assert found is not None
    assert set(found.errors) == {*(("Lambda", "SNS", "SQS") if run.channel == "queue" else ("Lambda", "S3")), "total"}
    assert found.largest_error < 0.01
    assert found.cost.usd == pytest.approx(run.total_usd, rel=0.01)


def test_microvms_are_billed_by_hand() -> None:
    """Two MicroVMs of 4 GB and 2 vCPUs for 30 s in all, 50 vCPU-seconds of burst; half a GB from one to the other."""
    usage = counted(microvm_run=2, microvm_token=2, microvm_connect=2, microvm_terminate=2)
    usage.received_bytes = 5 * 10**8
    found = cost(usage, microvms=[MicrovmTime(4096, 30.0, 50.0, 2, 0.6)])
    vcpus = (30 * 2 + 50) * 2.76944e-5
    rest = 30 * 4 * 3.6667e-6 + 2 * 0.6 * 0.0015467699 + 2 * 0.5 * 0.01
    assert found.usd == pytest.approx(vcpus + rest)
    assert found.by_service()["Lambda"] == pytest.approx(found.usd)
    usage.requests["microvm.connect"] = 0
    assert cost(usage, microvms=[MicrovmTime(4096, 30.0, 50.0, 2, 0.6)]).usd == pytest.approx(vcpus + rest - 0.01)
