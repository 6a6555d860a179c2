"""The JSON format of a rank's report: round trips, errors that name the field, and versions."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.errors import FileFormatError, StallError
from fsd_inference.rank_report import Interval, LayerReport, LeftOut, Position, RankReport, SentTo
from fsd_inference.usage import Usage

COUNTS = st.integers(0, 2**63 - 1)
SECONDS = st.floats(0, 1e18)
TIMES = st.floats(0, 2.5e11)
NAMES = st.text(max_size=5)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[Interval, ...]:
    times = draw(st.lists(st.tuples(SECONDS, SECONDS).map(sorted), max_size=4).map(sorted))
    return tuple(Interval(draw(NAMES), draw(st.integers(-1, 200)), draw(COUNTS), *span) for span in times)


REPORTS = st.builds(
    RankReport,
    rank=COUNTS,
    starter=st.none() | COUNTS,
    process=st.none() | COUNTS,
    started=st.none() | TIMES,
    ended=st.none() | TIMES,
    init_s=SECONDS,
    result_bytes=COUNTS,
    load_requests=COUNTS,
    load_s=SECONDS,
    compute_s=SECONDS,
    unpack_s=SECONDS,
    pack_s=SECONDS,
    wait_s=SECONDS,
    send_s=SECONDS,
    peak_rss_bytes=COUNTS,
    simd=st.sampled_from(["avx2", "neon"]),
    layers=st.lists(st.builds(LayerReport, *[SECONDS] * 5, *[COUNTS] * 3), max_size=3).map(tuple),
    events=intervals(),
    events_left_out=st.dictionaries(NAMES, st.builds(LeftOut, COUNTS, SECONDS), max_size=3),
    sent_to=st.none() | st.lists(st.builds(SentTo, COUNTS, COUNTS, COUNTS), max_size=3).map(tuple),
    digests=st.lists(st.integers(0, 2**64 - 1), max_size=3).map(tuple),
    usage=st.builds(Usage, st.dictionaries(NAMES, COUNTS, max_size=3).map(Counter), frames=COUNTS, retries=COUNTS),
    error=st.none() | st.builds(StallError, NAMES, rank=COUNTS).map(StallError.record),
    position=st.none() | st.builds(Position, st.text(min_size=1), COUNTS, COUNTS, st.lists(COUNTS).map(tuple)),
)

REPORT = RankReport(
    3,
    starter=1,
    process=77,
    started=10.0,
    ended=12.5,
    init_s=0.5,
    layers=(LayerReport(0.5, wait_s=0.25, frames=2, bytes=900, requests=4),),
    events=(Interval("load", -1, 0, 10.0, 11.0), Interval("wait", 0, 0, 11.0, 11.25)),
    events_left_out={"receive": LeftOut(7, 0.0)},
    sent_to=(SentTo(0, 2, 900),),
    digests=(2**64 - 1,),
    usage=Usage(Counter({"s3.get": 2}), Counter({"s3.get": 2})),
    error=StallError("no frame from rank 0", rank=0).record(),
    position=Position("waiting for rank 0", 3, 1, (0,)),
)
FIELDS = sorted(REPORT.to_json().keys() - {"version"})
LAYER_FIELDS = sorted(LayerReport().to_json())
USAGE_FIELDS = sorted(Usage().to_json())


def read(value: Any) -> RankReport:
    return RankReport.from_json(json.loads(json.dumps(value)), "ranks[3].")


def said_of(value: Any) -> str:
    with pytest.raises(FileFormatError) as caught:
        read(value)
    return str(caught.value)


@given(REPORTS)
def test_what_is_written_is_read(report: RankReport) -> None:
    assert read(report.to_json()) == report


@given(REPORTS)
def test_an_earlier_release_wrote_no_version(report: RankReport) -> None:
    value = report.to_json()
    del value["version"]
    assert read(value) == report


@pytest.mark.parametrize("name", FIELDS)
def test_what_an_earlier_release_did_not_say_is_told_apart(name: str) -> None:
    value = {each: said for each, said in REPORT.to_json().items() if each not in {"version", name}}
    if name == "rank":
        assert said_of(value) == "'ranks[3].rank' is missing"
    else:
        assert getattr(read(value), name) == getattr(RankReport(3), name)


def test_an_earlier_release_said_less_of_a_layer() -> None:
    assert read({"rank": 0, "layers": [{"bytes": 5}]}).layers == (LayerReport(bytes=5),)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_other_versions_are_refused(version: int) -> None:
    value = {"version": version, "whatever": "comes"}
    assert said_of(value) == f"ranks[3]: reports of version {version} are not known; this release reads 1"


@pytest.mark.parametrize(
    "name", sorted({*FIELDS} - {"init_s", "position", "digests", "checkpoints", "checkpoint_bytes"})
)  # which version 1 had not from the beginning
def test_a_field_that_is_missing_is_named(name: str) -> None:
    value = REPORT.to_json()
    del value[name]
    assert said_of(value) == f"'ranks[3].{name}' is missing"


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("wrong", [True, -1, "x", [[]], {"x": []}], ids=str)
def test_a_field_of_a_wrong_type_is_named(name: str, wrong: object) -> None:
    if (name == "simd" and wrong == "x") or (name == "error" and isinstance(wrong, dict)):
        return  # as it should be
    assert f"ranks[3].{name}" in said_of(REPORT.to_json() | {name: wrong})


@pytest.mark.parametrize("name", LAYER_FIELDS)
def test_a_layer_s_field_is_named(name: str) -> None:
    layer = LayerReport().to_json()
    assert f"'ranks[3].layers[1].{name}' must be" in said_of(
        REPORT.to_json() | {"layers": [layer, layer | {name: "x"}]}
    )
    del layer[name]
    assert f"'ranks[3].layers[0].{name}' is missing" in said_of(REPORT.to_json() | {"layers": [layer]})


@pytest.mark.parametrize("name", USAGE_FIELDS)
def test_a_count_of_the_usage_is_named(name: str) -> None:
    usage = Usage().to_json()
    assert f"'ranks[3].usage.{name}' must be" in said_of(REPORT.to_json() | {"usage": usage | {name: "x"}})
    del usage[name]
    assert f"'ranks[3].usage.{name}' is missing" in said_of(REPORT.to_json() | {"usage": usage})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"events": [["wait", 0, 0, 2.0, 1.0]]}, "'ranks[3].events[0]' ends before it starts"),
        ({"events": [["wait", 0, 0.5, 1.0, 2.0]]}, "'ranks[3].events[0]' must be a name, two whole numbers and two"),
        ({"events": [["wait", 0, 0, 0, 10**400]]}, "'ranks[3].events[0]' must be a name, two whole numbers and two"),
        ({"events": [["wait", 0, 0, float("nan"), 1.0]]}, "'ranks[3].events[0]' must be a name, two whole numbers"),
        ({"sent_to": [[0, 1, 2], [0, 1, -2]]}, "'ranks[3].sent_to[1]' must be three whole numbers, none of them"),
        (
            {"position": {"doing": "x", "layer": 0, "micro_batch": 0, "awaited": [1, -1]}},
            "'ranks[3].position.awaited' must be whole numbers, none of them negative, not [1, -1]",
        ),
        ({"events_left_out": {"send": [1, -2.0]}}, "'ranks[3].events_left_out.send' must be a whole number and"),
    ],
)
def test_rows_that_make_no_sense_are_named(change: dict[str, Any], said: str) -> None:
    assert said in said_of(REPORT.to_json() | change)


def test_events_are_read_by_start() -> None:
    value = REPORT.to_json()
    assert read(value | {"events": value["events"][::-1]}).events == REPORT.events


def test_anything_but_an_object_is_refused() -> None:
    assert said_of([1]) == "ranks[3] must be a JSON object"
    with pytest.raises(FileFormatError, match="a rank's report must be a JSON object"):
        RankReport.from_json(None)


# --- the metrics of an attempt, which hold such reports ---------------------------------------------------------------


def metrics(**changes: object) -> bytes:
    coordinator = {"started": 1.0, "ended": 2.0, "usage": Usage().to_json()}
    value = {"version": 1, "memory_mb": 512, "coordinator": coordinator, "ranks": [REPORT.to_json()]}
    return json.dumps(value | changes).encode()


def test_metrics_are_read() -> None:
    found = RunMetrics.from_bytes(metrics(), "runs/r/0/metrics")
    assert (found.memory_mb, found.coordinated, found.ranks) == (512, (1.0, 2.0), [REPORT])
    assert found.usage == REPORT.usage


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{", "it is not JSON"),
        (b"[]", "the object must be a JSON object"),
        (metrics(version=2), "metrics of version 2 are not known; this release reads 1"),
        (metrics(coordinator={"started": 1.0, "ended": None}), "'coordinator.usage' is missing"),
        (metrics(ranks=[{"rank": 0, "usage": {}}]), "'ranks[0].usage.requests' is missing"),
    ],
)
def test_wrong_metrics_are_named(data: bytes, said: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        RunMetrics.from_bytes(data, "runs/r/0/metrics")
    assert str(caught.value) == f"runs/r/0/metrics does not hold the metrics of a run: {said}"
