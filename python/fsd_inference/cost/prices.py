"""What AWS charges in a region: a dated table of prices with their sources, read from a file and checked.

The package has one file a region (``data/prices/REGION.json``); a user's own file has the same form. A price is a list
of monthly tiers. Free allowances are left out: they are the account's, not the run's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.fields import Fields

UNITS = {
    "lambda.x86_64.gb_second": "GB-second",
    "lambda.arm64.gb_second": "GB-second",
    "lambda.request": "request",
    "sns.publish": "64 KiB unit",
    "sns.delivery": "GB",
    "sqs.request": "64 KiB unit",
    "s3.put": "request",
    "s3.get": "request",
    "s3.storage": "GB-month",
    "s3express.put": "request",
    "s3express.get": "request",
    "s3express.upload": "GB",
    "s3express.retrieval": "GB",
    "s3express.storage": "GB-month",
}
"""What each price is for. Beside these, ``ec2.<instance type>`` is the price of an hour, on demand, with Linux."""
INSTANCE = "ec2."
EXPRESS = "s3express.put"
"""Has a price where a region has S3 Express One Zone."""
_FORMAT, _VERSION = "fsd-prices", 1
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_NAME = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Tier:
    """A unit's price from a monthly quantity on."""

    start: float
    usd: float


@dataclass(frozen=True, slots=True)
class Price:
    """What something costs.

    Attributes
    ----------
    unit : str
        What is counted.
    source : str
        Where the figures are from.
    tiers : tuple of Tier
        Ascending; the first starts at 0.
    """

    unit: str
    source: str
    tiers: tuple[Tier, ...]

    def usd(self, quantity: float, already: float = 0.0) -> float:
        """Return the price of `quantity` units, in dollars, after `already` units in the same month."""
        ends = [tier.start for tier in self.tiers[1:]] + [float("inf")]
        end = already + quantity
        spans = (
            (max(0.0, min(end, stop) - max(already, tier.start)), tier.usd)
            for tier, stop in zip(self.tiers, ends, strict=True)
        )
        return sum(units * usd for units, usd in spans)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of a region.

    Attributes
    ----------
    region : str
    date : str
        When the prices held: a year, month or day (ISO 8601).
    prices : mapping of str to Price
        By name: see `UNITS`.
    """

    region: str
    date: str
    prices: Mapping[str, Price]

    def __getitem__(self, name: str) -> Price:
        """Return a price; SettingError if the table has none of that name."""
        if name not in self.prices:
            raise SettingError(
                f"the prices of {self.region} ({self.date}) have none for {name!r}; add it to a file and give that"
            )
        return self.prices[name]

    def __str__(self) -> str:
        return f"prices of {self.region}, {self.date}"

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values, as files hold it."""
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "region": self.region,
            "currency": "USD",
            "date": self.date,
            "prices": {
                name: {
                    "unit": price.unit,
                    "source": price.source,
                    "tiers": [{"from": tier.start, "usd": tier.usd} for tier in price.tiers],
                }
                for name, price in self.prices.items()
            },
        }


def load_prices(region: str = "us-east-1", file: Path | None = None) -> PriceTable:
    """Return the prices of a region, from the package or from a user's file.

    Parameters
    ----------
    region : str
        For the package's own prices; not looked at where there is a file.
    file : Path, optional
        A file of the same form.

    Raises
    ------
    SettingError
        The package has no prices of the region.
    FileFormatError
        The file is not one of prices, or one of them makes no sense.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise FileFormatError(f"{file}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise FileFormatError(f"{file}: is not JSON") from error
        return parse_prices(text, str(file))
    found = _DATA / "prices" / f"{region}.json"
    if _NAME.fullmatch(region) is None or not found.is_file():
        known = ", ".join(regions())
        raise SettingError(
            f"there are no prices of region {region!r} here (there are of {known}); "
            "make a file with `fsd prices update` and give that"
        )
    return parse_prices(found.read_text(encoding="utf-8"), found.name)


def regions() -> list[str]:
    """Return the regions whose prices the package has."""
    files = (_DATA / "prices").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


_DATA = resources.files("fsd_inference.cost") / "data"


def parse_prices(text: str, what: str) -> PriceTable:
    """Read a file of prices and check it.

    Raises
    ------
    FileFormatError
        `what` names the file, and the message the field.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{what}: is not JSON") from error
    try:
        return _table(value)
    except InputError as error:
        raise FileFormatError(f"{what}: {error}") from error


def _table(value: object) -> PriceTable:
    top = Fields(value, "", "a file of prices")
    if top.take("format", str) != _FORMAT:
        raise FileFormatError(f"'format' must be {_FORMAT!r}: this is not a file of prices")
    if (version := top.take("version", int)) != _VERSION:
        raise FileFormatError(f"prices of version {version} are not known; this release reads {_VERSION}")
    if (currency := top.take("currency", str)) != "USD":
        raise FileFormatError(f"'currency' must be 'USD', not {currency!r}")
    region, date = top.take("region", str), top.take("date", str)
    if _DATE.fullmatch(date) is None:
        raise FileFormatError(f"'date' must be a year, month or day such as 2026-11, not {date!r}")
    prices = top.take("prices", dict)
    top.end()
    return PriceTable(region, date, {name: _price(name, price) for name, price in prices.items()})


def _price(name: str, value: object) -> Price:
    fields = Fields(value, f"prices.{name}.")
    unit = "hour" if name.startswith(INSTANCE) else UNITS.get(name)
    if unit is None:
        raise FileFormatError(f"'prices.{name}' is not known here; known are {', '.join(UNITS)} and {INSTANCE}*")
    if (said := fields.take("unit", str)) != unit:
        raise FileFormatError(f"'prices.{name}.unit' must be {unit!r}, not {said!r}")
    source = fields.take("source", str)
    tiers = tuple(
        _tier(tier, f"prices.{name}.tiers[{index}].") for index, tier in enumerate(fields.take("tiers", list))
    )
    fields.end()
    starts = [tier.start for tier in tiers]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise FileFormatError(f"'prices.{name}.tiers' must start at 0 and ascend, not at {starts}")
    return Price(unit, source, tiers)


def _tier(value: object, where: str) -> Tier:
    fields = Fields(value, where)
    tier = Tier(fields.take_number("from", "units a month"), fields.take_number("usd", "dollars, 0 or more"))
    fields.end()
    return tier
