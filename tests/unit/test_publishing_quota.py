"""The publishing quota of a stack's account reaches what must keep to it: channels, predictions, plans, simulations."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy import sparse

from fsd_inference.aws.backends import open_channel
from fsd_inference.channels.queue import QueueChannel
from fsd_inference.cli.auto_plan import auto_plan
from fsd_inference.cli.console import Output
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.forecast import advising
from fsd_inference.forecast.cutting import random_inputs
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.partitioned import Partitioned
from fsd_inference.forecast.predicting import Carried, predict_runs
from fsd_inference.forecast.timing import Timing
from fsd_inference.network import Network, random_network
from fsd_inference.stack_description import LaneSpec, StackSpec
from tests.support.cli import fsd_in

NETWORK = random_network([64] * 12, 6, seed=2)
LANE = LaneSpec(("arn:aws:sns:r:0:t",), tuple(f"http://127.0.0.1/{rank}" for rank in range(4)))
STACK = StackSpec("s", None, "eu-north-1", (LANE,), ("a",), "b")


def test_a_ranks_channel_keeps_to_it_and_is_patient_until_the_stall_clock() -> None:
    settings = RunSettings(workers=4, clocks=Clocks(stall_s=7.0))
    spec = RunSpec("a" * 32, 0, "b" * 32, samples=1, features=1, deadline=1e12, settings=settings)
    clients: Any = SimpleNamespace(topics=None, queues=None)
    for stack, quota in ((STACK, 300), (replace(STACK, publish_quota=5), 5), (replace(STACK, endpoint_url="x"), None)):
        channel = open_channel(clients, stack, [], "queue", spec=spec, rank=1, lane=0)
        assert isinstance(channel, QueueChannel)
        assert channel._settings.publish_per_s == quota
        assert channel._settings.retry.throttled_s == 7.0
        channel.close()


def test_a_prediction_takes_as_long_as_its_messages() -> None:
    planned = Partitioned.cut(NETWORK, 4, "block")
    settings = RunSettings(workers=4)
    x = random_inputs(64, 20)
    carried = Carried(planned.partition, planned.plan, "queue", settings, STACK, 1769, is_warm=True)
    usual = predict_runs(NETWORK, carried, x, [20])
    less = predict_runs(NETWORK, replace(carried, stack=replace(STACK, publish_quota=1)), x, [20])
    # Each of 4 ranks publishes a quarter of a message a second, after ten at once.
    busiest = sum(max(Counter(edge.source for edge in exchange).values()) for exchange in planned.plan.exchanges)
    assert usual.wall_s is not None
    assert less.wall_s == pytest.approx(usual.wall_s + (busiest - 10) * 4, abs=usual.wall_s)


def test_a_plan_for_a_stack_heeds_it_and_the_size_of_its_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    NETWORK.save(tmp_path / "net")
    sparse.save_npz(tmp_path / "x.npz", random_inputs(64, 20))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen: list[tuple[float, int]] = []
    advise = advising.advise

    def noted(network: Network, question: Question, *, timing: Timing, **more: Any) -> Any:
        seen.append((timing["account.messages_per_s"], question.message_bytes))
        return advise(network, question, timing=timing, **more)

    monkeypatch.setattr(advising, "advise", noted)
    for stack in (STACK, replace(STACK, publish_quota=9, message_bytes=1 << 20), None):
        auto_plan(tmp_path / "net", tmp_path / "x.npz", None, None, stack, Output(as_json=False))
    assert seen == [(300, 1 << 18), (9, 1 << 20), (30_000, 1 << 18)]


def test_a_simulation_heeds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    NETWORK.save(tmp_path / "net")
    fsd = fsd_in(capsys)
    options = ("simulate", tmp_path / "net", "--samples", 20, "--workers", 4, "--partition", "block", "--json")
    usual, less = fsd(*options).json(), fsd(*options, "--publish-quota", 1).json()
    assert less["wall_s"] > usual["wall_s"] + 30
