"""Lambda Managed Instances in the planner: functions beyond 10 GB, and a fleet that is paid without queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import save_npz

from fsd_inference.cli.auto_plan import auto_plan
from fsd_inference.cli.console import Output
from fsd_inference.cost.prices import Price, PriceTable, Tier, load_prices
from fsd_inference.errors import SettingError
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.cutting import random_inputs
from fsd_inference.forecast.managed import fleet_usd_a_day, managed_function
from fsd_inference.forecast.options import MANAGED, Advice, Option, Question
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import load_timing
from fsd_inference.network import random_network
from fsd_inference.stack_description import FunctionsSpec, ManagedInstances, StackSpec, WorkerFunction
from tests.support.scenarios import random_plan

SAMPLES = 1000
TYPE = "m7g.4xlarge"


def cut(shard_bytes: int = 10**6, connections: int = 1) -> Cut:
    _, plan, work = random_plan(1, 30, 96, seed=1)
    work = replace(work, shard_bytes=np.array([shard_bytes]), connections=work.connections * connections)
    return Cut(plan, work, dense_payloads(plan, samples=SAMPLES, features=96))


def asked(whole: Cut | None = None, prices: PriceTable | None = None, **more: object) -> Advice:
    question = Question(SAMPLES, **more)  # type: ignore[arg-type]
    return plan_options({1: whole or cut()}, question, load_timing(), prices or load_prices())


def managed(advice: Advice) -> Option:
    (option,) = (option for option in advice.options if option.variant == MANAGED)
    return option


@pytest.mark.parametrize(
    ("instance", "vcpus", "gib"),
    [
        ("m7g.4xlarge", 8, 32),
        ("m7g.2xlarge", 7, 28),
        ("c7g.8xlarge", 16, 32),
        ("c7g.4xlarge", 15, 30),
        ("r8g.xlarge", 3, 24),
        ("r7i.16xlarge", 4, 32),
        ("m7a.large", 1, 4),
    ],
)
def test_functions_have_the_ratio_of_their_instance_and_at_most_32_gb(instance: str, vcpus: int, gib: int) -> None:
    assert managed_function(instance) == (vcpus, gib * 1024)


@pytest.mark.parametrize("instance", ["t3.large", "m7g", "m7g.4large", "m7g.0xlarge", "m7g.metal", "x m7g.large"])
def test_other_types_are_refused(instance: str) -> None:
    with pytest.raises(SettingError, match="must be an EC2 instance type of a family c, m or r"):
        Question(SAMPLES, managed_instances=instance)


def test_a_fleet_is_three_instances_and_a_fee() -> None:
    prices = PriceTable("here", "2026-11", {f"ec2.{TYPE}": Price("hour", "a test", (Tier(0, 2.0),))})
    assert fleet_usd_a_day(TYPE, prices) == pytest.approx(3 * 24 * 2.0 * 1.15)
    with pytest.raises(SettingError, match=r"no price 'ec2\.m7g\.2xlarge'"):
        fleet_usd_a_day("m7g.2xlarge", prices)


def test_a_network_beyond_the_largest_function_runs_undivided() -> None:
    found = asked(cut(shard_bytes=20 * 10**9), queries_a_day=500, managed_instances=TYPE)
    alone = [option for option in found.options if option.variant == "serial"]
    assert alone
    assert all(option.limit == "memory" for option in alone)
    option = managed(found)
    assert (option.problem, option.memory_mb, option.is_modelled_only) == (None, 32_768, True)
    assert option.usd == pytest.approx(option.usd_a_day / 500, rel=0.05)  # type: ignore[operator]
    assert found.managed is not None
    assert found.managed.queries_a_day is None  # nothing to compare with
    larger = managed(asked(cut(shard_bytes=40 * 10**9), queries_a_day=500, managed_instances=TYPE))
    assert (larger.limit, (larger.problem or "").startswith("memory does not fit")) == ("memory", True)


def test_other_answers_stay_as_they_are() -> None:
    without, found = asked(queries_a_day=500), asked(queries_a_day=500, managed_instances=TYPE)
    assert without.managed is None
    assert not any(option.variant == MANAGED for option in without.options)
    others = [replace(option, is_pareto=False) for option in found.options if option.variant != MANAGED]
    assert others == [replace(option, is_pareto=False) for option in without.options]
    assert found.break_even == without.break_even


def test_from_the_stated_number_of_queries_on_the_fleet_is_cheaper() -> None:
    whole = cut(connections=100)
    fleet = asked(whole, managed_instances=TYPE, cold=False).managed
    assert fleet is not None
    assert fleet.queries_a_day is not None
    assert fleet.usd_a_month == pytest.approx(30 * 3 * 24 * 0.6528 * 1.15)
    for factor, is_cheaper in ((0.9, False), (1.1, True)):
        queries = factor * fleet.queries_a_day
        found = asked(whole, managed_instances=TYPE, cold=False, queries_a_day=queries)
        option, functions = managed(found), found.best_functions
        assert functions is not None
        assert option.usd is not None
        assert functions.usd is not None
        assert (option.usd < functions.usd) is is_cheaper
        assert (option.limit == "rate") is (queries > fleet.most_queries_a_day)


def test_the_number_of_queries_must_be_known_and_be_possible() -> None:
    unknown = managed(asked(managed_instances=TYPE))
    assert (unknown.usd, unknown.limit) == (None, "rate")
    assert "give that" in (unknown.problem or "")
    often = managed(asked(managed_instances=TYPE, queries_a_day=1e7))
    assert "queries a day, not 10,000,000" in (often.problem or "")


def test_asynchronous_invocations_may_take_ninety_minutes() -> None:
    seen = set()
    for factor in np.geomspace(1e3, 1e8, 26):
        option = managed(asked(cut(connections=round(factor)), managed_instances=TYPE, queries_a_day=0.1))
        if option.wall_s < 5400 or option.wall_s > 5410:  # the caller waits for little more than the function's time
            assert option.limit == ("invocation" if option.wall_s > 5400 else None)
            seen.add(option.limit)
    assert seen == {None, "invocation"}


def test_a_plan_for_a_stack_leaves_its_managed_instances_to_those_who_ask_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random_network([64] * 3, 6, seed=2).save(tmp_path / "net")
    save_npz(tmp_path / "x.npz", random_inputs(64, 20))
    arn = "arn:aws:lambda:us-east-1:000000000000:function:s-worker"
    workers = (WorkerFunction(3008, arn), WorkerFunction(32_768, f"{arn}:$LATEST.PUBLISHED", ManagedInstances(3, 16)))
    functions = FunctionsSpec(arn, workers, "http://127.0.0.1:9/q", 900.0)
    stack = StackSpec("s", None, "us-east-1", (), ("runs",), "networks", functions=functions)
    chosen = auto_plan(tmp_path / "net", tmp_path / "x.npz", None, None, stack, Output(as_json=False))
    assert chosen.memory_mb == 3008
