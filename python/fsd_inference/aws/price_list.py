"""Prices of a region, fetched from the AWS Price List API into a price table of the cost model.

The code follows the API's reference and published examples, and is tested with responses of that form; it has not been
run against AWS itself. A price that the API does not list as expected is an error that names it, never a guess.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from fsd_inference.aws.sdk import SDK_ERRORS, text_of
from fsd_inference.cost.prices import INSTANCE, UNITS, Price, PriceTable, Tier
from fsd_inference.errors import SettingError, StackError

PRICE_LIST_REGION = "us-east-1"
"""Region of the API endpoint, which serves the prices of all regions."""
INSTANCES = (
    *(f"c5.{size}xlarge" for size in (2, 4, 9, 12, 18, 24)),
    *(f"m7g.{size}xlarge" for size in (2, 4)),
)
_PAGES = 100  # a filter that matches more pages than this must be wrong
_ANYWHERE = "Any"  # the location of the free allowances


class PriceListClient(Protocol):
    """The part of boto3's ``pricing`` client that is used."""

    def get_products(self, **request: Any) -> Mapping[str, Any]:
        """Return a page of products: ``PriceList`` (JSON strings) and, except on the last page, ``NextToken``."""


@dataclass(frozen=True, slots=True)
class _Query:
    """The query for one price: API filters, the suffix of the product's usage type, and whether it may be absent."""

    service: str
    filters: Mapping[str, str]
    usage_type: str = ""
    optional: bool = False


_QUERIES = {
    "lambda.x86_64.gb_second": _Query("AWSLambda", {"group": "AWS-Lambda-Duration"}),
    "lambda.arm64.gb_second": _Query("AWSLambda", {"group": "AWS-Lambda-Duration-ARM"}),
    "lambda.request": _Query("AWSLambda", {"group": "AWS-Lambda-Requests"}),
    "sns.publish": _Query("AmazonSNS", {"group": "SNS-Requests-Tier1"}),
    "sns.delivery": _Query(
        "AWSDataTransfer", {"transferType": "AWS Outbound", "toLocation": "External"}, "DataTransfer-Out-Bytes"
    ),
    "sqs.request": _Query("AWSQueueService", {"group": "SQS-APIRequest-Tier1", "queueType": "Standard"}),
    "s3.put": _Query("AmazonS3", {"group": "S3-API-Tier1"}, "Requests-Tier1"),
    "s3.get": _Query("AmazonS3", {"group": "S3-API-Tier2"}, "Requests-Tier2"),
    "s3.storage": _Query("AmazonS3", {"volumeType": "Standard"}, "TimedStorage-ByteHrs"),
    "s3express.put": _Query("AmazonS3", {"productFamily": "API Request"}, "Requests-XZ-Tier1", optional=True),
    "s3express.get": _Query("AmazonS3", {"productFamily": "API Request"}, "Requests-XZ-Tier2", optional=True),
    "s3express.upload": _Query("AmazonS3", {}, "Upload-XZ", optional=True),
    "s3express.retrieval": _Query("AmazonS3", {}, "Retrieval-XZ", optional=True),
    "s3express.storage": _Query("AmazonS3", {}, "TimedStorage-XZ-ByteHrs", optional=True),
    "microvm.vcpu_second": _Query("AWSLambda", {"group": "AWS-Lambda-MicroVM-vCPU-Second-ARM"}, optional=True),
    "microvm.gb_second": _Query("AWSLambda", {"group": "AWS-Lambda-MicroVM-Memory-GB-Second-ARM"}, optional=True),
    "microvm.snapshot_read": _Query("AWSLambda", {"group": "AWS-Lambda-MicroVM-Snapshot-Read-GB"}, optional=True),
    "microvm.snapshot_write": _Query("AWSLambda", {"group": "AWS-Lambda-MicroVM-Snapshot-Write-GB"}, optional=True),
    "microvm.snapshot_storage": _Query(
        "AWSLambda", {"group": "AWS-Lambda-MicroVM-Snapshot-Storage-GB-Hour"}, optional=True
    ),
    "microvm.transfer": _Query(
        "AWSDataTransfer", {"transferType": "IntraRegion"}, "DataTransfer-Regional-Bytes", optional=True
    ),
} | {
    f"{INSTANCE}{instance}": _Query(
        "AmazonEC2",
        {
            "instanceType": instance,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        },
        optional=True,
    )
    for instance in INSTANCES
}


def fetch_prices(client: PriceListClient, region: str) -> PriceTable:
    """Fetch all prices of a region.

    Parameters
    ----------
    client : PriceListClient
        boto3's ``pricing`` client in `PRICE_LIST_REGION`.
    region : str

    Raises
    ------
    SettingError
        The API lists no product for a required price, several products for any price, or invalid prices or tiers.
    StackError
        The API refused the request, did not answer, or its response does not have the documented form.
    """
    today = datetime.now(UTC).date().isoformat()
    prices = {}
    for name, query in _QUERIES.items():
        try:
            found = list(_tiers(client, name, query, region))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StackError(f"the AWS Price List's answer for {name!r} is not as documented ({error!r})") from error
        if not found and query.optional:
            continue
        if len(found) != 1:
            raise SettingError(
                f"the AWS Price List has {len(found)} products for {name!r} in region {region!r}, where one was "
                "expected: check the region's name"
            )
        unit = "hour" if name.startswith(INSTANCE) else UNITS[name]
        prices[name] = Price(unit, f"AWS Price List API, {query.service}, {today}", found[0])
    return PriceTable(region, today, prices)


def _tiers(client: PriceListClient, name: str, query: _Query, region: str) -> Iterator[tuple[Tier, ...]]:
    """Yield the distinct price tiers of all products that match a query."""
    seen = set()
    for product in _products(client, query, region):
        attributes = product["product"]["attributes"]
        if attributes.get("location") == _ANYWHERE or not _ends(attributes.get("usagetype", ""), query.usage_type):
            continue
        terms = product.get("terms", {}).get("OnDemand", {}).values()
        for term in terms:
            tiers = _without_allowance(_dimensions(name, term["priceDimensions"].values()))
            if tiers and tiers not in seen:
                seen.add(tiers)
                yield tiers


def _ends(usage_type: str, wanted: str) -> bool:
    """Return whether a usage type is `wanted`, with or without a region prefix (``EU-Requests-Tier1``)."""
    return usage_type == wanted or usage_type.endswith(f"-{wanted}") or not wanted


def _products(client: PriceListClient, query: _Query, region: str) -> Iterator[Mapping[str, Any]]:
    # Data transfer is listed by its region of origin.
    where = "fromRegionCode" if query.service == "AWSDataTransfer" else "regionCode"
    filters = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in {where: region, **query.filters}.items()
    ]
    request: dict[str, Any] = {"ServiceCode": query.service, "Filters": filters, "FormatVersion": "aws_v1"}
    for _ in range(_PAGES):
        try:
            page = client.get_products(**request)
        except SDK_ERRORS as error:
            raise StackError(f"cannot read the AWS Price List: {text_of(error)}") from error
        yield from map(json.loads, page["PriceList"])
        if not page.get("NextToken"):
            return
        request["NextToken"] = page["NextToken"]
    raise StackError(f"the AWS Price List has too many products of {query.service} for one price")


def _dimensions(name: str, dimensions: Iterable[Mapping[str, Any]]) -> list[Tier]:
    """Return the price tiers in ascending order; raise `SettingError` if they leave gaps, overlap or lack a price."""
    ordered = sorted(dimensions, key=lambda each: float(each["beginRange"]))
    for each in ordered:
        if not math.isfinite(float(each["pricePerUnit"].get("USD", math.nan))):
            raise SettingError(f"the AWS Price List has no price in dollars for {name!r}: {each['pricePerUnit']}")
    edges = [0.0, *(float(each["endRange"]) for each in ordered)]  # the last is "Inf"
    if edges[:-1] != [float(each["beginRange"]) for each in ordered] or edges[-1] != math.inf:
        raise SettingError(f"the tiers that the AWS Price List has for {name!r} leave a gap or overlap")
    return [Tier(float(each["beginRange"]), float(each["pricePerUnit"]["USD"])) for each in ordered]


def _without_allowance(tiers: list[Tier]) -> tuple[Tier, ...]:
    """Drop a free first tier, which is an allowance per account, and start the next tier at 0."""
    paid = tiers[1:] if len(tiers) > 1 and tiers[0].usd == 0 else tiers
    return tuple(Tier(0.0 if index == 0 else tier.start, tier.usd) for index, tier in enumerate(paid))
