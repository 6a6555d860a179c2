"""Price tables: the package's own and users' files, tiers, and one-line errors for invalid files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.cost.prices import UNITS, Price, PriceTable, Tier, load_prices, parse_prices, regions
from fsd_inference.errors import FileFormatError, SettingError

quantities = st.floats(0, 1e12)


def price(*tiers: tuple[float, float]) -> Price:
    return Price("request", "a test", tuple(Tier(*tier) for tier in tiers))


@st.composite
def tiered(draw: st.DrawFn) -> Price:
    starts = draw(st.lists(st.floats(1, 1e12), max_size=4, unique=True))
    return price(*((start, draw(st.floats(0, 1.0))) for start in [0.0, *sorted(starts)]))


def test_the_packages_prices_are_complete_and_dated() -> None:
    assert regions() == ["us-east-1"]
    found = load_prices("us-east-1")
    assert (found.region, found.date) == ("us-east-1", "2026-11")
    assert set(UNITS) <= set(found.prices)
    assert found["ec2.c5.9xlarge"].usd(2) == pytest.approx(3.06)
    assert found["lambda.x86_64.gb_second"].usd(1e6) == pytest.approx(16.6667)
    assert all(price.source for price in found.prices.values())


def test_tiers_begin_where_they_say() -> None:
    found = load_prices()["sqs.request"]
    assert found.usd(100e9) == pytest.approx(40_000)
    assert found.usd(150e9) == pytest.approx(40_000 + 50e9 * 3e-7)
    assert found.usd(1e9, already=250e9) == pytest.approx(1e9 * 2.4e-7)
    assert found.usd(150e9, already=90e9) == pytest.approx(10e9 * 4e-7 + 100e9 * 3e-7 + 40e9 * 2.4e-7)


@given(tiered(), quantities, quantities)
def test_a_price_is_additive_over_a_month(found: Price, first: float, second: float) -> None:
    parts = found.usd(first) + found.usd(second, already=first)
    assert parts == pytest.approx(found.usd(first + second), rel=1e-9, abs=1e-3)


@given(tiered(), quantities, quantities)
def test_more_never_costs_less(found: Price, one: float, other: float) -> None:
    assert found.usd(min(one, other)) <= found.usd(max(one, other))


def written(tmp_path: Path, change: Any) -> Path:
    value = load_prices().to_json()
    change(value)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(value))
    return path


def test_a_users_file_reads_back(tmp_path: Path) -> None:
    path = written(tmp_path, lambda value: value.update(region="mars-1", date="2031-02-28"))
    found = load_prices("ignored", path)
    assert str(found) == "prices of mars-1, 2031-02-28"
    assert parse_prices(json.dumps(found.to_json()), "again") == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["prices"]["sns.publish"]["tiers"][0].update(usd=-1), "'prices.sns.publish.tiers[0].usd' must be"),
        (lambda v: v["prices"]["sns.publish"]["tiers"][0].update(usd="free"), "tiers[0].usd' must be a number"),
        (lambda v: v["prices"]["sns.publish"]["tiers"][0].update(usd=float("nan")), "not nan"),
        (lambda v: v["prices"]["sns.publish"]["tiers"][0].update({"from": 5}), "must start at 0 and ascend"),
        (lambda v: v["prices"]["sqs.request"]["tiers"].reverse(), "must start at 0 and ascend"),
        (lambda v: v["prices"]["sns.publish"].update(tiers=[]), "must start at 0"),
        (
            lambda v: v["prices"]["sns.publish"].update(unit="request"),
            "'prices.sns.publish.unit' must be '64 KiB unit'",
        ),
        (lambda v: v["prices"]["sns.publish"].pop("source"), "'prices.sns.publish.source' is missing"),
        (lambda v: v["prices"].update({"sns.pigeon": {}}), "'prices.sns.pigeon' is not a known price"),
        (lambda v: v["prices"].update({"sns.publish": 1}), "prices.sns.publish must be a JSON object"),
        (lambda v: v.update(date="last week"), "'date' must be a year, month or day"),
        (lambda v: v.update(date="2026-13"), "'date' must be"),
        (lambda v: v.update(currency="EUR"), "'currency' must be 'USD', not 'EUR'"),
        (lambda v: v.update(version=2), "version 2 are not supported"),
        (lambda v: v.update(format="fsd-stack"), "'format' must be 'fsd-prices'"),
        (lambda v: v.update(surprise=1), "'surprise' is an unknown field"),
        (lambda v: v.pop("region"), "'region' is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    path = written(tmp_path, change)
    with pytest.raises(FileFormatError) as raised:
        load_prices(file=path)
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"is not JSON|must be a JSON object"):
        load_prices(file=path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_prices(file=tmp_path / "none.json")


@pytest.mark.parametrize("region", ["eu-west-1", "", "../paper/prices", "US-EAST-1"])
def test_an_unknown_region_names_the_known_ones(region: str) -> None:
    with pytest.raises(SettingError, match=r"it has those of us-east-1.*fsd prices update"):
        load_prices(region)


def test_a_price_that_is_missing_is_named() -> None:
    with pytest.raises(SettingError, match=r"prices of here \(2026\) have no price 'sns.publish'"):
        PriceTable("here", "2026", {})["sns.publish"]
