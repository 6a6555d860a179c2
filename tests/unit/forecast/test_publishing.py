"""The publishing quota in closed form, before a run: plans that no run can publish in time are refused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fsd_inference.aws.preflight import _publishing
from fsd_inference.config import Clocks, FailurePolicy, RunSettings
from fsd_inference.errors import SettingError
from fsd_inference.forecast.publishing import paced_s, plan_problem
from fsd_inference.partitioning.plan import Edge, ExchangePlan
from fsd_inference.progress import Silent
from fsd_inference.session.distributed import Distributed
from fsd_inference.stack_description import LaneSpec, StackSpec

ROW = np.zeros(1, np.int32)


def plan(layers: int, *messages: int) -> ExchangePlan:
    """Return a plan by which rank r sends `messages[r]` messages after each layer."""
    count = len(messages)
    edges = tuple(Edge(r, ((r + 1) % count,), ROW) for r in range(count) for _ in range(messages[r]))
    return ExchangePlan(count, (edges,) * layers)


def stack(region: str = "eu-north-1", ranks: int = 4, **more: int) -> StackSpec:
    lane = LaneSpec(("arn:aws:sns:r:0:t",), tuple(f"http://127.0.0.1/{rank}" for rank in range(ranks)))
    return StackSpec("s", None, region, (lane,), ("a",), "b", **more)  # type: ignore[arg-type]


def test_layers_by_hand() -> None:
    # Two ranks share 20 messages a second: each has 10 at once, and 10 a second.
    messages = np.array([[15.0, 1.0], [5.0, 5.0], [0.0, 30.0], [3.0, 3.0]])
    # 5 more than the burst, half a second; then 1 s gives 10 tokens, 5 of which are used; then 15 and 30; then plenty.
    assert paced_s([0.0, 1.0, 1.0, 1.0, 1.0], messages, 20.0) == pytest.approx((0.5, 1.0, 2.5, 1.0, 1.0))


def test_a_burst_is_saved_once_and_not_more() -> None:
    messages = np.array([[0.0], [0.0], [30.0]])
    assert paced_s([100.0, 100.0, 0.0, 0.0], messages, 10.0) == pytest.approx((100.0, 100.0, 2.0, 0.0))


@pytest.mark.parametrize(
    ("messages", "layers", "micro_batches", "said"),
    [
        ((3000, 10, 10, 10), 5, 1, None),  # 3,000 at 75 a second take 40 s
        ((6000, 10, 10, 10), 5, 1, "of a layer takes 79.0 s at the account's quota of 300 messages a second"),
        ((3000, 10, 10, 10), 24, 1, "of the run takes 959.0 s at"),
        ((3000, 10, 10, 10), 5, 5, "of the run takes 999.0 s at"),
        ((3000, 10, 10, 10), 5, 4, None),
    ],
)
def test_a_plan_that_cannot_be_published_in_time_is_named(
    messages: tuple[int, ...], layers: int, micro_batches: int, said: str | None
) -> None:
    found = plan_problem(plan(layers, *messages), micro_batches, 300, Clocks())
    assert (found is None) if said is None else (said in (found or "")), found


def test_a_session_refuses_what_the_accounts_quota_does_not_allow() -> None:
    def prepared(described: StackSpec, channel: str = "queue") -> None:
        executor = SimpleNamespace(stack=described)
        stored = SimpleNamespace(plan=plan(5, 6000, 10, 10, 10))
        platform = SimpleNamespace(open=lambda: executor, deploy=lambda _: stored)
        settings = RunSettings(workers=4)
        Distributed(channel, settings, platform, replicas=1, failures=FailurePolicy(), progress=Silent()).prepare()

    with pytest.raises(
        SettingError, match=r"4 workers cannot run over queues: publishing .* channel object, or ask AWS"
    ):
        prepared(stack())
    prepared(stack("us-east-1"))
    prepared(stack(publish_quota=9_000))
    prepared(stack(), "object")


def test_the_check_of_a_stack_names_the_quota_and_what_it_slows() -> None:
    few, many, most = (_publishing(stack(ranks=ranks), 300) for ranks in (16, 62, 200))
    assert (few.state, few.text) == ("ok", "the account may publish 300 messages a second in eu-north-1 by default")
    assert many.state == "ok"
    assert "each of 62 ranks sends to all others takes 12.6 s or longer" in many.text
    assert most.state == "problem"
    raised = _publishing(stack(ranks=62, publish_quota=9_000), 9_000)
    assert raised.text == "the account may publish 9,000 messages a second in eu-north-1, as stack.json says"
