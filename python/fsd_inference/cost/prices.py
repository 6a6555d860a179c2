"""Price tables: the dated AWS prices of a region with their sources, read from a JSON file and checked.

The package has one file per region (``data/prices/REGION.json``); a user's own file has the same form. A price is a
list of monthly tiers. The free tier is left out, because it belongs to the account and not to a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import Fields, parse_json, read_text

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
    "microvm.vcpu_second": "vCPU-second",
    "microvm.gb_second": "GB-second",
    "microvm.snapshot_read": "GB",
    "microvm.snapshot_write": "GB",
    "microvm.snapshot_storage": "GB-hour",
    "microvm.transfer": "GB",
}
"""The unit of each price. ``ec2.<instance type>`` is also a price: an hour on demand with Linux."""
INSTANCE = "ec2."
"""Prefix of the prices of EC2 instances."""
EXPRESS = "s3express.put"
"""A price that exists only in regions with S3 Express One Zone."""
MICROVM = "microvm.vcpu_second"
"""A price that exists only in regions with Lambda MicroVMs."""
_FORMAT, _VERSION = "fsd-prices", 1
_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_NAME = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, slots=True)
class Tier:
    """A price tier: dollars per unit once the month's quantity has reached `start`."""

    start: float
    usd: float


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one billed item, in monthly tiers.

    Attributes
    ----------
    unit : str
        Unit that is billed, see `UNITS`.
    source : str
        Where the figures were published.
    tiers : tuple of Tier
        In ascending order; the first starts at 0.
    """

    unit: str
    source: str
    tiers: tuple[Tier, ...]

    def usd(self, quantity: float, already: float = 0.0) -> float:
        """Return the cost in dollars of `quantity` units, after `already` units in the same month."""
        ends = [tier.start for tier in self.tiers[1:]] + [float("inf")]
        end = already + quantity
        spans = (
            (max(0.0, min(end, stop) - max(already, tier.start)), tier.usd)
            for tier, stop in zip(self.tiers, ends, strict=True)
        )
        return sum(units * usd for units, usd in spans)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """The prices of an AWS region on a date.

    Attributes
    ----------
    region : str
    date : str
        Date on which the prices were valid: a year, month or day (ISO 8601).
    prices : mapping of str to Price
        Prices by name, see `UNITS`.
    """

    region: str
    date: str
    prices: Mapping[str, Price]

    def __getitem__(self, name: str) -> Price:
        """Return the price named `name`; SettingError if the table has none."""
        if name not in self.prices:
            raise SettingError(
                f"the prices of {self.region} ({self.date}) have no price {name!r}; "
                "add it to a price file and pass that file"
            )
        return self.prices[name]

    def __str__(self) -> str:
        return f"prices of {self.region}, {self.date}"

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain JSON values, in the form of a price file."""
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
    """Load the prices of a region from the package, or from a user's price file.

    Parameters
    ----------
    region : str
        Region of the package's prices; ignored if `file` is given.
    file : Path, optional
        A price file.

    Raises
    ------
    SettingError
        The package has no prices of the region.
    FileFormatError
        The file cannot be read, is not a price file, or has an invalid price.
    """
    if file is not None:
        return parse_prices(read_text(file), str(file))
    found = _DATA / "prices" / f"{region}.json"
    if _NAME.fullmatch(region) is None or not found.is_file():
        known = ", ".join(regions())
        raise SettingError(
            f"the package has no prices of region {region!r} (it has those of {known}); "
            "make a price file with `fsd prices update` and pass it"
        )
    return parse_prices(found.read_text(encoding="utf-8"), found.name)


def regions() -> list[str]:
    """Return the names of the regions whose prices the package includes."""
    files = (_DATA / "prices").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


_DATA = resources.files("fsd_inference.cost") / "data"


def parse_prices(text: str, what: str) -> PriceTable:
    """Parse the text of a price file and check it.

    Parameters
    ----------
    text : str
        The file's content.
    what : str
        Name of the file in error messages.

    Raises
    ------
    FileFormatError
        The text is not a price file, or a field is missing or wrong; the message names the field.
    """
    return parse_json(text, what, _table)


def _table(value: object) -> PriceTable:
    top = Fields(value, "", "a price file")
    if top.take("format", str) != _FORMAT:
        raise FileFormatError(f"'format' must be {_FORMAT!r}: this is not a price file")
    if (version := top.take("version", int)) != _VERSION:
        raise FileFormatError(f"price files of version {version} are not supported; this release reads {_VERSION}")
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
        raise FileFormatError(f"'prices.{name}' is not a known price; known are {', '.join(UNITS)} and {INSTANCE}*")
    if (given := fields.take("unit", str)) != unit:
        raise FileFormatError(f"'prices.{name}.unit' must be {unit!r}, not {given!r}")
    source = fields.take("source", str)
    tiers = tuple(
        _tier(tier, f"prices.{name}.tiers[{index}].") for index, tier in enumerate(fields.take("tiers", list))
    )
    fields.end()
    starts = [tier.start for tier in tiers]
    if not starts or starts[0] != 0 or starts != sorted(set(starts)):
        raise FileFormatError(f"'prices.{name}.tiers' must start at 0 and ascend: their starts are {starts}")
    return Price(unit, source, tiers)


def _tier(value: object, where: str) -> Tier:
    fields = Fields(value, where)
    tier = Tier(fields.take_number("from", "units a month"), fields.take_number("usd", "dollars, 0 or more"))
    fields.end()
    return tier
