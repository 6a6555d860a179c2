"""`fsd advise`: results for small networks, plots, cached plans, and one-line errors for invalid settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast import advising
from fsd_inference.forecast.cutting import cut_network, random_inputs
from fsd_inference.forecast.estimating import Exchanged, estimated_plan, interpolated
from fsd_inference.forecast.options import Advice, Question
from fsd_inference.forecast.plan_cache import PlanCache
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import load_timing
from fsd_inference.network import random_network
from fsd_inference.partitioning import partition
from fsd_inference.report import Report
from tests.support.cli import Fsd, fsd_in

NETWORK = random_network([64] * 6, 6, seed=2)


@pytest.fixture
def fsd(capsys: pytest.CaptureFixture[str]) -> Fsd:
    return fsd_in(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    NETWORK.save(tmp_path / "net")
    sparse.save_npz(tmp_path / "x.npz", random_inputs(64, 40))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_ranked_answer_with_its_reasons(fsd: Fsd, place: Path) -> None:
    said = fsd("advise", "net", "--batch", 500, "--input", "x.npz", "--queries-per-day", 500, "-o", "front.png")
    assert (said.code, said.stderr) == (0, "")
    for word in ("serial", "queue, P=2", "of the time", "of the cost", "queries a day on", "prices of us-east-1"):
        assert word in " ".join(said.stdout.split()), said.stdout
    assert (place / "front.png").read_bytes().startswith(b"\x89PNG")
    again = fsd("advise", "net", "--batch", 500, "--input", "x.npz", "--queries-per-day", 500, "--json").json()
    assert again["best"] == again["options"][0]
    assert again["best"]["problem"] is None
    assert {8} <= {option["workers"] for option in again["options"]}
    assert not any(option["is_estimated"] for option in again["options"])
    assert again["is_cold"] is False
    first = fsd(
        "advise", "net", "--batch", 500, "--input", "x.npz", "--queries-per-day", 500, "--cold", "--json"
    ).json()
    assert first["is_cold"] is True
    assert first["best"]["wall_s"] > again["best"]["wall_s"]


def test_the_region_of_the_prices_and_a_raised_quota_decide_how_much_may_be_published(fsd: Fsd, place: Path) -> None:
    table = load_prices().to_json() | {"region": "eu-north-1"}
    (place / "prices.json").write_text(json.dumps(table))
    few = fsd("advise", "net", "--batch", 500, "--prices", "prices.json", "--publish-quota", 1, "--json").json()
    reason = next(option["reason"] for option in few["options"] if option["name"] == "queue, P=8")
    assert "quota-bound: waiting to publish at most 1 messages a second" in reason
    assert load_timing("aws", region=load_prices("any", place / "prices.json").region)["account.messages_per_s"] == 300
    seen = []

    def plan(*arguments: Any, **more: Any) -> Advice:
        seen.append(arguments[2]["account.messages_per_s"])
        return plan_options(*arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(advising, "plan_options", plan)
        fsd("advise", "net", "--batch", 500, "--prices", "prices.json")
        fsd("advise", "net", "--batch", 500)
        fsd("study", "net", "--pattern", "diurnal", "--queries-per-day", 5, "--batch", 9, "--prices", "prices.json")
    assert (seen[0], seen[1], set(seen[2:])) == (300, 30_000, {300})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("net --batch 0", "samples must be 1 to"),
        ("net --batch 9 --deadline -1s", "deadline must be more than 0"),
        ("net --batch 9 --deadline soon", "--deadline must be a number"),
        ("net --batch 9 --deadline 1ms", "nothing answers 9 samples within these limits"),
        ("net --batch 9 --budget -1", "budget must be more than 0"),
        ("net --batch 9 --budget 1e-12", "nothing answers 9 samples within these limits"),
        ("net --batch 9 --region moon-1", "no prices of region 'moon-1'"),
        ("nothing --batch 9", "nothing"),
        ("net-p2 --batch 9", "holds shards"),
        ("net --batch 9 -o plot.doc", "must end in .png"),
        ("net --batch 9 --checkpoint-every often", "'often' is neither auto nor a whole number"),
        ("net --batch 9 --checkpoint-every -3", "checkpoint_every must be a whole number of at least 0, not -3"),
        ("net --batch 9 --input wide.npz", "wide.npz"),
    ],
)
def test_one_line_for_what_cannot_be_answered(fsd: Fsd, place: Path, flags: str, message: str) -> None:
    partition(NETWORK, place / "net-p2", workers=2, method="block")
    sparse.save_npz(place / "wide.npz", random_inputs(70, 4))
    said = fsd("advise", *flags.split())
    assert said.code == 2
    assert message in said.error()


def test_infer_runs_the_plan(fsd: Fsd, place: Path) -> None:
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--plan", "auto")
    assert said.code == 0
    assert said.stderr.startswith("plan: serial (")
    by_hand = fsd("infer", "net", "x.npz", "-o", "serial.npz")
    assert by_hand.code == 0
    assert Path("out.npz").read_bytes() == Path("serial.npz").read_bytes()
    partition(NETWORK, place / "net-p2", workers=2, method="block")
    for flags, message in (
        ("net x.npz --replicas 2 --plan auto", "give none"),
        ("net x.npz --deadline 3s", "need --plan auto"),
        ("net x.npz --deadline soon --plan auto", "--deadline must be a number"),
        ("net x.npz --deadline 1ms --plan auto", "no functions can answer x.npz within the limits"),
        ("net x.npz --channel queue --plan auto", "give none"),
        ("net x.npz --workers 2 --plan auto", "give none"),
        ("net-p2 x.npz --plan auto", "holds shards"),
    ):
        failed = fsd("infer", *flags.split(), "-o", "out.npz")
        assert failed.code == 2
        assert message in failed.error()


def test_infer_runs_replicas_that_win_and_names_a_server(
    fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_order(*given: Any, **more: Any) -> Advice:
        found = plan_options(*given, **more)
        servers = [option for option in found.options if option.variant == "job server"]
        pair = [option for option in found.options if option.replicas == 2]
        return replace(found, options=(*servers[:1], *pair, *found.options))

    monkeypatch.setattr(advising, "plan_options", other_order)
    said = fsd("infer", "net", "x.npz", "-o", "out.npz", "--plan", "auto", "--budget", "1", "--report", "run")
    assert said.code == 0
    assert said.stderr.startswith("plan: serial, 2 replicas (")
    assert "; better, but not run here: job server c5" in said.stderr
    found = Report.load("run")
    assert found.replicas == 2
    assert found.predicted is not None  # without being asked for
    fsd("infer", "net", "x.npz", "-o", "serial.npz")
    assert Path("out.npz").read_bytes() == Path("serial.npz").read_bytes()


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("express", "express modelled only, at the latency of one availability zone: stacks use S3 Standard"),
        ("direct", "direct modelled only, on Lambda MicroVMs: frames at an assumed latency, see docs/microvms.md"),
    ],
)
def test_what_is_modelled_only_is_never_run(
    fsd: Fsd, place: Path, monkeypatch: pytest.MonkeyPatch, variant: str, said: str
) -> None:
    def modelled_first(*given: Any, **more: Any) -> Advice:
        found = plan_options(*given, **more)
        modelled = [option for option in found.options if option.variant == variant]
        return replace(found, options=(*modelled[:1], *found.options))

    monkeypatch.setattr(advising, "plan_options", modelled_first)
    shown = " ".join(fsd("advise", "net", "--batch", 500, "--input", "x.npz").stdout.split())
    assert said in shown
    options = fsd("advise", "net", "--batch", 500, "--input", "x.npz", "--json").json()["options"]
    assert {option["is_modelled_only"] for option in options if option["variant"] == variant} == {True}
    assert not any(option["is_modelled_only"] for option in options if option["variant"] in {"serial", "object"})
    answered = fsd("infer", "net", "x.npz", "-o", "out.npz", "--plan", "auto")
    assert answered.code == 0
    assert answered.stderr.startswith("plan: serial (")
    assert f"; better, but not run here: {variant}, P=" in answered.stderr


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_plans_are_kept_and_found_again(tmp_path: Path) -> None:
    first = cut_network(NETWORK, Question(50), x=random_inputs(64, 50), cache=tmp_path / "cache")
    assert sorted(first) == [1, 2, 4, 8]
    again = cut_network(NETWORK, Question(50), x=random_inputs(64, 50), cache=tmp_path / "cache", cutting_s=0.0)
    for workers, one in first.items():
        other = again[workers]
        assert not other.is_estimated
        assert np.array_equal(one.work.connections, other.work.connections)
        for edges, others in zip(one.plan.exchanges, other.plan.exchanges, strict=True):
            assert [(edge.source, edge.targets) for edge in edges] == [(edge.source, edge.targets) for edge in others]
            assert all(np.array_equal(a.rows, b.rows) for a, b in zip(edges, others, strict=True))
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(b"not a plan")
    assert PlanCache(tmp_path / "cache", NETWORK.digest, "graph").get(2) is None


def test_what_there_is_no_time_to_cut_is_estimated_from_other_cuts(tmp_path: Path) -> None:
    x = random_inputs(64, 50)
    known = cut_network(NETWORK, Question(50, most_workers=2), x=x, cache=tmp_path / "cache")
    found = cut_network(NETWORK, Question(50), x=x, cache=tmp_path / "cache", cutting_s=0.0)
    assert [workers for workers, one in found.items() if one.is_estimated] == [4, 8]
    assert found[2].payloads.exchanges[0].sum() == pytest.approx(known[2].payloads.exchanges[0].sum())
    truth = cut_network(NETWORK, Question(50), x=x, cache=tmp_path / "other")
    for workers in (4, 8):
        sent = [sum(sizes.sum() for sizes in cuts[workers].payloads.exchanges) for cuts in (found, truth)]
        assert 0.2 < sent[0] / sent[1] < 5


def test_interpolation_goes_through_what_is_known_and_stays_possible() -> None:
    known = [Exchanged(2, 0.5, 1.0), Exchanged(8, 2.0, 5.0)]
    assert interpolated(known, 8, 32).rows == pytest.approx(2.0)
    assert 0.5 < interpolated(known, 4, 32).rows < 2.0
    far = interpolated(known, 1024, 3)
    assert far.rows <= 3
    plan = estimated_plan(interpolated(known, 4, 32), [64, 64, 64])
    sent = sum(edge.rows.size * len(edge.targets) for exchange in plan.exchanges for edge in exchange)
    assert sent == pytest.approx(2 * 64 * interpolated(known, 4, 32).rows, rel=0.15)
    assert [len(exchange) for exchange in plan.exchanges] == [8, 8]


def test_a_run_of_hours_is_refused_or_handed_on(fsd: Fsd, place: Path) -> None:
    """Kernels are a million times slower than measured ones."""
    rates = [name for name in load_timing().values if name.startswith("kernel.")]
    value = {"value": 1e-6, "unit": "Gedge/s", "source": "a test"}
    timing = {"format": "fsd-timing", "version": 1, "name": "slow", "date": "2026-11", "base": "aws"}
    Path("slow.json").write_text(json.dumps({**timing, "values": dict.fromkeys(rates, value)}))
    random_network([64] * 41, 6, seed=2).save("deep")
    asked = ("advise", "deep", "--batch", 500, "--largest-function", 1769, "--most-workers", 1, "--timing", "slow.json")

    def serial(*flags: str) -> dict[str, Any]:
        found = fsd(*asked, "--json", *flags).json()["options"]
        return next(option for option in found if option["variant"] == "serial")

    assert "may run for 1800 s: --checkpoint-every auto hands the run on" in serial()["problem"]
    handed_on = serial("--checkpoint-every", "auto")
    assert handed_on["problem"] is None
    assert handed_on["attempts"] > handed_on["wall_s"] / 900 > 2
    shown = fsd(*asked, "--checkpoint-every", str(handed_on["checkpoint_every"])).stdout
    assert "invocations in a row" in " ".join(shown.replace("│", " ").split())


def test_managed_instances_are_an_option_that_costs_without_queries(fsd: Fsd, place: Path) -> None:
    command = ("advise", "net", "--batch", 500, "--input", "x.npz", "--queries-per-day", 500)
    said = fsd(*command, "--managed-instances", "m7g.4xlarge", "-o", "front.png")
    assert (said.code, said.stderr) == (0, "")
    assert "3 x m7g.4xlarge, USD 1,622 in 30 days also without queries" in " ".join(said.stdout.split())
    wrong = fsd(*command, "--managed-instances", "t3.large")
    assert wrong.code == 2
    assert "such as m7g.4xlarge, not 't3.large'" in " ".join(wrong.stderr.split())
