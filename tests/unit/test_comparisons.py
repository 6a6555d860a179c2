"""The comparisons of docs/comparisons.md, for a small network and against the models themselves."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from fsd_inference.config import RunSettings
from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import load_prices
from fsd_inference.forecast.counts import count_usage
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.planner import plan_options
from fsd_inference.forecast.timing import load_timing
from fsd_inference.partitioning.exchange import exchange_plan, volumes
from fsd_inference.partitioning.methods import partition_network
from tests.bench.comparisons import channels, choosing, grid, microvms, partitions, servers
from tests.bench.comparisons.__main__ import PARTS, Comparisons
from tests.bench.comparisons.pages import put_block
from tests.bench.comparisons.subjects import Subject

LAYERS = 4
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject.official(1024, tmp_path_factory.mktemp("plans"), LAYERS)


def test_every_table_and_figure_of_the_page_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "WORKERS", {1024: (2, 8)})
    monkeypatch.setattr(grid, "BATCHES", (grid.SAMPLES,))
    monkeypatch.setattr(partitions, "WORKERS", (2,))
    monkeypatch.setattr(microvms, "WORKERS", (2, 8))
    for name, few in (("WORKERS", (2,)), ("DRAWN", (2,)), ("STEPS", (2,)), ("SIZES", (1.0,))):
        monkeypatch.setattr(channels, name, few)
    text = (DOCS / "comparisons.md").read_text(encoding="utf-8")
    for name in ("comparisons.md", "choosing.md", "microvms.md"):
        whole = (DOCS / name).read_text(encoding="utf-8")
        bare = re.sub(r"(<!-- ([\w-]+) -->).*?(<!-- end \2 -->)", r"\1\n\3", whole, flags=re.DOTALL)
        (tmp_path / name).write_text(bare, encoding="utf-8")
    monkeypatch.setattr(choosing, "wide_advice", partial(choosing.wide_advice, neurons=256, layers=3))
    made = Comparisons(tmp_path, tmp_path / "plans", [1024], LAYERS)
    for part in PARTS:
        getattr(made, part)()
    for name in ("comparisons.md", "choosing.md", "microvms.md"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        blocks = re.findall(r"<!-- ([\w-]+) -->\n(.*?)<!-- end \1 -->", page, re.DOTALL)
        assert blocks
        for block, table in blocks:
            assert table.count("\n|") >= 2, block
    named = set(re.findall(r"\(figures/(\w+\.png)\)", text))
    assert named == {path.name for path in (tmp_path / "figures").iterdir()}
    assert all((tmp_path / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in named)


def test_points_are_what_the_planner_says(subject: Subject) -> None:
    cuts = {p: cut for (_, p), cut in subject.cuts([("graph", 1), ("graph", 4)], 1000).items()}
    found = list(grid.points(1024, cuts, [1000], load_timing(), load_prices()))
    options = plan_options(cuts, Question(1000, queries_a_day=grid.OFTEN), load_timing(), load_prices()).options
    assert {(point.option.variant, point.option.workers) for point in found} == {
        ("serial", 1), ("queue", 4), ("object", 4),
    }  # fmt: skip
    for point in found:
        same = [
            o for o in options if (o.variant, o.workers, o.replicas) == (point.option.variant, point.option.workers, 1)
        ]
        assert point.option in same
        assert point.option.usd == min(option.usd or 1.0 for option in same)


def test_rows_and_dollars_are_those_of_the_cut(subject: Subject) -> None:
    cuts = subject.cuts([("random", 4), ("hypergraph", 4)], 1000)
    by_method = {volume.method: volume for volume in partitions.volumes(cuts, load_prices())}
    partition = partition_network(subject.network, 4, "random")
    plan = exchange_plan(subject.network, partition)
    needed = volumes(subject.network, partition, plan, 0.0).row_sends
    # Rows that several want are sent once, and some then get a few that they do not need.
    assert needed <= by_method["random"].row_sends <= 1.25 * needed
    assert by_method["hypergraph"].row_sends < by_method["random"].row_sends
    assert by_method["hypergraph"].megabytes < by_method["random"].megabytes
    cut = cuts["random", 4]
    usage = count_usage(cut.plan, cut.payloads, RunSettings(workers=4), "queue")
    assert by_method["random"].queue_usd == run_cost(usage, [], load_prices(), samples=1).usd


def test_an_exchange_costs_what_one_more_layer_adds() -> None:
    made = channels.Channels(load_timing(), load_prices())
    assert made.exchange("queue", 4, 10.0).services_usd > made.exchange("queue", 4, 1.0).services_usd
    found = made.exchange("object", 4, 10.0)
    usages = []
    for exchanges in (21, 1):
        plan, payloads = channels.all_to_all(4, 10.0, exchanges)
        usages.append(count_usage(plan, payloads, RunSettings(workers=4), "object"))
    dollars = run_cost(usages[0] - usages[1], [], load_prices(), samples=1).usd
    assert found.services_usd == pytest.approx(dollars / 20, rel=0.05)
    assert found.usd > found.services_usd
    # A rank writes one object, and each other one reads it: at least, some look in vain.
    assert found.services_usd >= 4 * 5e-6 + 4 * 3 * 4e-7


@pytest.mark.parametrize("workers", [2, 8])
def test_the_crossing_is_where_the_channels_cost_the_same(workers: int) -> None:
    made = channels.Channels(load_timing(), load_prices())
    kb = made.crossing_kb(workers, lambda one: one.services_usd, "object")
    assert kb is not None
    queue, objects = (made.exchange(channel, workers, kb).services_usd for channel in ("queue", "object"))
    assert queue == pytest.approx(objects, rel=0.1)
    assert made.crossing_workers(kb * 2, lambda one: one.services_usd, "object") in {
        step for step in channels.STEPS if step <= workers
    }


def test_servers_break_even_where_the_planner_says(subject: Subject) -> None:
    cuts = {p: cut for (_, p), cut in subject.cuts([("graph", 1), ("graph", 2)], 10_000).items()}
    found = list(servers.alternatives(cuts, 10_000, servers.QUERIES, load_timing(), load_prices()))
    even = servers.break_even(found)
    said = plan_options(cuts, Question(10_000, queries_a_day=1000), load_timing(), load_prices()).break_even
    assert said is not None
    assert even == pytest.approx(said.queries_a_day)
    for one in found:
        if one.kind in {"functions", "job server", "job cluster"}:
            assert one.usd_a_day == pytest.approx(one.queries_a_day * (one.option.usd or 0.0))
        else:
            assert one.usd_a_day >= (one.option.usd_a_day or 0.0)
    fewer = [one.usd_a_day for one in found if one.kind == "always-on server"]
    assert fewer == sorted(fewer)


def test_a_page_without_the_marks_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# nothing\n")
    with pytest.raises(ValueError, match="must hold <!-- grid -->"):
        put_block(page, "grid", "table")
