"""Timing files: the package's sets, users' files, latencies, kernel rates and function speeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.forecast.launch import study_launch
from fsd_inference.forecast.speed import Speed, kernel_rate, vcpus
from fsd_inference.forecast.timing import SETS, Latency, Sourced, load_timing, timing_json
from tests.support.scenarios import latencies, timing


def file(path: Path, base: str = "aws", **values: float) -> Path:
    named = {name.replace("__", "."): Sourced(value, "a test") for name, value in values.items()}
    path.write_text(json.dumps(timing_json("mine", "2026-11-22", base, named)))
    return path


@pytest.mark.parametrize("name", SETS)
def test_every_packaged_value_says_where_it_is_from(name: str) -> None:
    found = load_timing(name)
    assert found.date.startswith("2026")
    assert all(len(sourced.source) > 10 and ".." not in sourced.source for sourced in found.values.values())
    assert found.kernel_rates()


def test_a_file_changes_what_it_has(tmp_path: Path) -> None:
    one = file(tmp_path / "one.json", get__median_s=0.001, get__p99_s=0.002)
    other = file(tmp_path / "other.json", get__median_s=0.0015, kernel__64__8=3.0)
    found = load_timing("emulator", one, other)
    assert found.latency("get") == Latency(0.0015, 0.002)
    assert found.latency("put") == load_timing("aws").latency("put")
    assert found.kernel_rates()[64, 8] == 3e9
    assert str(found) == "timing of mine, 2026-11"


@pytest.mark.parametrize(
    ("region", "quota"), [("us-east-1", 30_000), ("eu-west-1", 9_000), ("eu-central-1", 1_500), ("eu-north-1", 300)]
)
def test_a_region_has_its_publishing_quota(tmp_path: Path, region: str, quota: int) -> None:
    found = load_timing("aws", region=region)
    assert found["account.messages_per_s"] == quota
    assert region in found.values["account.messages_per_s"].source
    raised = file(tmp_path / "raised.json", account__messages_per_s=20_000)
    assert load_timing("aws", raised, region=region)["account.messages_per_s"] == 20_000
    assert load_timing("aws", raised, region=region, publish_quota=777)["account.messages_per_s"] == 777
    assert load_timing("emulator", region=region)["account.messages_per_s"] > 30_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "not a timing file"),
        ({"version": 9}, "timing files of version 9 are not supported"),
        ({"base": "mars"}, "'base' must be aws or emulator, not 'mars'"),
        ({"values": {"get.median_s": {"value": -1, "unit": "s", "source": "x"}}}, "must be a number of s"),
        ({"values": {"get.median_s": {"value": 1, "unit": "ms", "source": "x"}}}, "unit' must be 's', not 'ms'"),
        ({"values": {"get.mean_s": {"value": 1, "unit": "s", "source": "x"}}}, "'get.mean_s' is not a timing value"),
        ({"values": {"core.factor": {"value": 0, "unit": "factor", "source": "x"}}}, "must be more than 0"),
        ({"values": {"kernel.0.1": {"value": 1, "unit": "Gedge/s", "source": "x"}}}, "is not a timing value"),
        ({"more": 1}, "'more' is an unknown field"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    value = timing_json("mine", "2026-11", "aws", {}) | change
    path = tmp_path / "timing.json"
    path.write_text(json.dumps(value))
    with pytest.raises(FileFormatError, match=said) as caught:
        load_timing("aws", path)
    assert str(caught.value).startswith(str(path))


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_timing("aws", tmp_path / "none.json")
    (tmp_path / "text").write_text("{")
    with pytest.raises(FileFormatError, match="is not JSON"):
        load_timing("aws", tmp_path / "text")
    with pytest.raises(SettingError, match="different sets"):
        load_timing("aws", file(tmp_path / "a"), file(tmp_path / "b", "emulator"))
    with pytest.raises(SettingError, match="must be at least 'get"):
        load_timing("aws", file(tmp_path / "c", get__median_s=9.0))
    with pytest.raises(SettingError, match="not 'mars'"):
        load_timing("mars")


def test_a_latency_has_the_percentiles_that_it_says() -> None:
    latency = Latency(0.02, 0.08)
    drawn = latency.median_s * np.exp(latency.sigma * np.random.default_rng(0).standard_normal(200_000))
    assert np.median(drawn) == pytest.approx(0.02, rel=0.02)
    assert np.percentile(drawn, 99) == pytest.approx(0.08, rel=0.03)
    assert drawn.mean() == pytest.approx(latency.mean_s, rel=0.02)
    assert latency.largest_s(1) == pytest.approx(0.02)
    assert latency.largest_s(99) == pytest.approx(0.08)
    assert Latency(0.0, 0.0).mean_s == Latency(0.0, 0.0).largest_s(9) == 0.0


@given(st.integers(1, 10**6), st.floats(1, 1e6))
def test_rates_lie_between_the_measured_ones(inputs: int, samples: float) -> None:
    grid = {(1024, 1): 1e9, (1024, 64): 16e9, (4096, 1): 1.5e9, (4096, 64): 9e9}
    assert 1e9 * 0.999 <= kernel_rate(grid, inputs, samples) <= 16e9 * 1.001
    for (neurons, batch), rate in grid.items():
        assert kernel_rate(grid, neurons, batch) == pytest.approx(rate)


def test_memory_gives_processors() -> None:
    assert [vcpus(mb) for mb in (1769, 3538, 10614, 10240)] == [1, 2, 6, pytest.approx(5.788, abs=0.001)]
    half = timing(core__factor=0.5)
    assert Speed(half, vcpus(1769), threads=1).rate(10, 10) == pytest.approx(0.5e9)
    assert Speed(half, vcpus(3538), threads=2).rate(10, 10) == pytest.approx(1e9)
    assert Speed(half, vcpus(3538), threads=1).rate(10, 10) == pytest.approx(0.5e9)
    assert Speed(half, vcpus(884), threads=2).kernel == pytest.approx(0.25, rel=1e-2)
    assert Speed(half).rate(10, 10) == pytest.approx(0.5e9)


def test_a_tree_starts_many_sooner_than_one_launcher() -> None:
    times = timing(**latencies(0.05, 0.05), environments__burst=1000, environments__per_s=100)
    found = {(one.workers, one.branching): one for one in study_launch(times, [1, 8, 1000], [2, 8], runs=3)}
    assert found[1, 1].median_s == 0
    # Four at a time: start, begin and cold once each, 0.05 s, after the claim.
    assert found[8, 7].median_s == pytest.approx(0.05 + 2 * 0.05 + 0.1)
    assert found[1000, 999].median_s == pytest.approx(0.05 + 250 * 0.05 + 0.1)
    assert found[1000, 8].median_s < found[1000, 2].median_s < found[1000, 999].median_s
    assert found[1000, 8].depth == 5
    assert found[1000, 8].is_allowed
    slow = timing(**latencies(0.05, 0.05), environments__burst=100, environments__per_s=10)
    (last,) = [one for one in study_launch(slow, [1000], [8], runs=1) if one.branching == 8]
    assert last.median_s >= 89
    with pytest.raises(SettingError, match="runs must be at least 1"):
        list(study_launch(times, [8], [2], runs=0))
