"""The study of a day's queries: traces, random generation, warm environments, queueing for a server, `fsd study`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsd_inference.cost.prices import load_prices
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.study import Day, study
from fsd_inference.forecast.timing import Sourced, load_timing
from fsd_inference.forecast.workload import DAY_S, PATTERNS, Query, drawn_trace, parse_trace, trace_text
from fsd_inference.network import random_network
from tests.support.cli import Fsd, fsd_in
from tests.support.scenarios import random_plan


def cut(workers: int) -> Cut:
    _, plan, work = random_plan(workers, 20, 96, seed=workers)
    return Cut(plan, work, dense_payloads(plan, samples=1000, features=96))


CUTS = {workers: cut(workers) for workers in (1, 2)}
NETWORK = random_network([96] * 3, connections=4)  # which CUTS stand for


def days(
    *queries: Query, cuts: dict[int, Cut] = CUTS, deadline_s: float | None = None, concurrency: int = 1000
) -> dict[str, Day]:
    question = Question(max(q.samples for q in queries), deadline_s)
    found = study(NETWORK, queries, question, cuts=cuts, concurrency=concurrency)
    assert list(found) == sorted(found, key=lambda day: (day.problem is not None, day.usd))
    return {day.name: day for day in found}


def test_functions_are_paid_by_the_query_and_an_always_on_server_by_the_day() -> None:
    one, two = (days(*(Query(3600.0 * k, 1000) for k in range(count))) for count in (1, 2))
    assert two["queue"].usd == pytest.approx(2 * one["queue"].usd)
    assert one["serial"].cold == two["serial"].cold == 1.0
    server = "always-on server c5.2xlarge"
    assert one[server].usd == two[server].usd == pytest.approx(24 * 0.34)
    assert one["job server c5.2xlarge"].latency_s["p50"] > 60


def test_functions_that_were_used_just_now_are_warm() -> None:
    found = days(*(Query(100.0 * k, 1000) for k in range(10)))
    assert found["serial"].cold == pytest.approx(0.1)
    assert found["serial"].latency_s["p50"] < found["serial"].latency_s["max"]
    assert days(*(Query(0.0, 1000) for _ in range(10)))["serial"].cold == 1.0  # all at once


def test_only_cold_queries_pay_for_init_phases() -> None:
    timing = load_timing()
    longer = timing.with_values("longer", {"init.s": Sourced(timing["init.s"] + 0.01, "a test")})
    queries = [Query(100.0 * k, 1000) for k in range(4)] + [Query(50_000.0, 1000)]  # two are cold
    before, after = (
        {day.name: day for day in study(NETWORK, queries, Question(1000), cuts=CUTS, timing=times)}
        for times in (timing, longer)
    )
    assert before["queue"].cold == pytest.approx(2 / 5)
    advice = plan_options(CUTS, Question(1000, cold=True), timing, load_prices())
    option = next(option for option in advice.options if option.variant == "queue")
    mb = option.workers * (option.memory_mb or 0) + 512
    assert after["queue"].usd - before["queue"].usd == pytest.approx(2 * 0.01 * mb / 1024 * 1.66667e-5)
    assert after["queue"].latency_s == before["queue"].latency_s


def test_queries_wait_for_the_one_server() -> None:
    heavy = {p: Cut(c.plan, type(c.work)(c.work.connections * 10**4, c.work.inputs, c.work.shard_bytes), c.payloads)
             for p, c in CUTS.items()}  # fmt: skip
    server = "always-on server c5.2xlarge"
    alone = days(Query(0.0, 1000), cuts=heavy)[server].latency_s["max"]
    queued = days(*(Query(0.0, 1000) for _ in range(5)), cuts=heavy)[server]
    assert queued.latency_s["max"] == pytest.approx(5 * alone)
    assert queued.cold is None


def test_queries_that_overlap_share_what_the_account_may_run() -> None:
    together = [Query(0.0, 1000) for _ in range(6)]
    free = days(*together)["queue"]
    assert free.throttled == 0
    alone = free.latency_s["max"]
    # P = 2 and a coordinator: two fit at once, the others wait, first come, first served.
    found = days(*together, concurrency=6)["queue"]
    assert found.throttled == 4
    assert found.usd < free.usd  # who waits finds functions warm
    warm = days(Query(0.0, 1000), Query(100.0, 1000))["queue"].latency_s["p50"] * 2 - alone
    # The last waits for two runs before it, and asks for admission every 5 s at most.
    assert alone + 2 * warm <= found.latency_s["max"] <= alone + 2 * (warm + 5)
    server = days(*together, concurrency=6)["job server c5.2xlarge"]
    assert server.throttled is None


def test_who_waits_starts_when_it_asks_again() -> None:
    """Waiting clients ask after 1, 2.5, 4.75, 8.125, 13.125 s and so on (limits.py)."""
    alone = days(Query(0.0, 1000))["serial"].latency_s["max"]
    first, second = 0.0, 0.01
    found = days(Query(first, 1000), Query(second, 1000), concurrency=2)["serial"]
    warm = days(Query(0.0, 1000), Query(100.0, 1000))["serial"].latency_s["p50"] * 2 - alone
    asked = next(asked for asked in (1, 2.5, 4.75, 8.125, 13.125) if second + asked >= alone)
    assert found.latency_s["max"] == pytest.approx(asked + warm)
    assert found.throttled == 1


def test_queries_that_wait_longer_than_the_run_clock_are_refused() -> None:
    together = [Query(0.0, 1000) for _ in range(400)]
    alone = days(Query(0.0, 1000))["queue"].latency_s["max"]
    found = days(*together, concurrency=3)["queue"]
    refused = int((found.problem or "").partition(" of 400 queries are not admitted within 900 s")[0])
    assert 400 - 900 / 2 - 1 <= refused < 400 - 900 / (alone + 5) + 1


def test_a_query_that_needs_more_than_the_account_may_run_is_a_problem() -> None:
    found = days(Query(0.0, 1000), concurrency=2)
    assert found["serial"].problem is None
    assert "needs 3 functions at once, and the account may run 2" in (found["queue"].problem or "")
    with pytest.raises(SettingError, match="at least 1 function"):
        days(Query(0.0, 1000), concurrency=0)


def test_waiting_past_the_deadline_is_a_problem() -> None:
    alone = days(Query(0.0, 1000))["queue"].latency_s["max"]
    together = [Query(0.0, 1000) for _ in range(6)]
    assert days(*together, deadline_s=1.1 * alone)["queue"].problem is None
    late = days(*together, deadline_s=1.1 * alone, concurrency=3)["queue"]
    assert "5 of 6 queries after the deadline" in (late.problem or "")


def test_between_the_sizes_that_are_planned_days_are_close_to_the_planner() -> None:
    samples = np.unique(np.geomspace(200, 50_000, 15).astype(int)).tolist()
    queries = [Query(1000.0 * k, count) for k, count in enumerate(samples)]  # far apart: all are cold
    base = days(*queries)
    for count in samples[2:-1:4]:
        more = days(*queries, Query(80_000.0, count))
        advice = plan_options(CUTS, Question(count), load_timing(), load_prices())
        for variant in ("serial", "queue", "object", "express", "job server c5.2xlarge"):
            best = next(o for o in advice.options if variant in {o.variant, o.name})
            assert more[variant].usd - base[variant].usd == pytest.approx(best.usd, rel=0.1), (variant, count)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_drawn_days_have_about_the_queries_asked_for_and_survive_a_file(pattern: str) -> None:
    drawn = [drawn_trace(pattern, 400, 100, seed) for seed in range(20)]
    assert np.mean([len(queries) for queries in drawn]) == pytest.approx(400, rel=0.15)
    for queries in drawn:
        assert [query.at_s for query in queries] == sorted(query.at_s for query in queries)
        assert all(0 <= query.at_s < DAY_S and query.samples >= 1 for query in queries)
    again = parse_trace(trace_text(drawn[0]), "trace")
    assert [query.samples for query in again] == [query.samples for query in drawn[0]]
    assert drawn_trace(pattern, 400, 100, 3) == drawn[3]


def test_patterns_differ() -> None:
    def spread(pattern: str) -> float:
        at = np.array([query.at_s for query in drawn_trace(pattern, 2000, 10)])
        return float(np.histogram(at, 288, (0, DAY_S))[0].std())

    assert spread("sporadic") < spread("diurnal") < spread("bursty")
    noon = [12 * 3600 - 7200 < query.at_s < 12 * 3600 + 7200 for query in drawn_trace("diurnal", 2000, 10)]
    assert np.mean(noon) > 0.25


@pytest.mark.parametrize(
    "text",
    [
        "seconds,samples\n1.5,20\n0,3\n",
        "\ufeffseconds,samples\n1.5,20\n0,3",
        "Seconds;SAMPLES\r\n1.5;20\r\n0;3\r\n",
        "seconds\tsamples\n1.5\t20\n0\t3\n",
        " seconds , samples \n 1.5 , 20 \n\n0,\t3\n \t\n",
        '"Seconds","Samples"\r"15e-1"," 20"\r"0",3\r',
    ],
)
def test_traces_of_spreadsheets(text: str) -> None:
    assert parse_trace(text, "day.csv") == (Query(0.0, 3), Query(1.5, 20))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seconds,samples\n", "the trace is empty"),
        ("", "line 1: must be 'seconds,samples'"),
        ("seconds,samples\n5\n", "line 2: must be seconds and samples"),
        ("seconds,samples\n5,x\n", "line 2: must be seconds and samples"),
        ("seconds,samples\n5,0\n", "line 2: samples must be 1 to 1,000,000,000"),
        ("seconds,samples\n1,1\nnan,4\n", "line 3: seconds since midnight must be at least 0 and below 86400"),
        ("seconds,samples\n1,\u0664\n", "line 2: must be seconds and samples"),
        ("seconds,samples\n86400,4\n", "line 2: seconds since midnight must be"),
    ],
)
def test_traces_that_make_no_sense(text: str, said: str) -> None:
    with pytest.raises(FileFormatError, match=said):
        parse_trace(text, "day.csv")


def test_draws_that_make_no_sense() -> None:
    for wrong in (("weekly", 5.0, 5), ("bursty", 0.0, 5), ("bursty", 5.0, 0)):
        with pytest.raises(SettingError):
            drawn_trace(*wrong)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsd: Fsd = fsd_in(capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    random_network([64] * 4, 6, seed=2).save(tmp_path / "net")
    flags = "--pattern bursty --queries-per-day 50 --batch 100 --most-workers 2 --write-trace day.csv"
    said = fsd("study", "net", *flags.split())
    assert (said.code, said.stderr) == (0, "")
    for word in ("serial", "queue", "always-on", "p99", "cheapest"):
        assert word in said.stdout
    again = fsd("study", "net", "--trace", "day.csv", "--most-workers", "2", "--json").json()
    assert again["days"][0]["problem"] is None
    assert again["queries"] > 1
    (tmp_path / "empty.csv").write_text("seconds,samples\n")
    for wrong, message in (
        ("--trace empty.csv", "the trace is empty"),
        ("--trace none.csv", "cannot be read"),
        ("", "give the queries"),
        ("--trace day.csv --pattern bursty", "give the queries"),
        ("--trace day.csv --deadline 0s", "deadline must be more than 0"),
    ):
        failed = fsd("study", "net", *wrong.split())
        assert failed.code == 2
        assert message in failed.error()
