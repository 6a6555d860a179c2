"""From what a run counted, or what a plan predicts, to dollars. docs/cost-model.md states the formulas.

A run's cost is the sum of what each service bills: `lambda_lines`, `sns_lines`, `sqs_lines` and `s3_lines`. Over
`queue` all four count; over `object` and `serial` there is no SNS and no SQS to bill.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fsd_inference.cost.prices import PriceTable
from fsd_inference.errors import SettingError
from fsd_inference.prediction import FunctionTime
from fsd_inference.usage import EACH_MESSAGE, Usage

GB = 1e9
"""Bytes of a GB of transfer. AWS also counts 2**30, which is cheaper."""
_LAMBDA_GB = 1024
"""MB of a GB of Lambda's memory (AWS Lambda pricing)."""
SERVICES = ("Lambda", "SNS", "SQS", "S3")

_PUT_KINDS = ("s3.put", "s3.list", "s3.manage")
_GET_KINDS = ("s3.get", "s3.head")  # found or not
_SQS_KINDS = ("sqs.receive", "sqs.delete", "sqs.purge", "sqs.manage")  # empty polls are among the receives
# AWS bills no DELETE and no look at Lambda's settings; invocations are counted with the functions' time.
_FREE_KINDS = ("s3.delete", "lambda.invoke", "lambda.settings")
_KNOWN = {*_PUT_KINDS, *_GET_KINDS, *_SQS_KINDS, *_FREE_KINDS, "sns.publish", "sns.manage"}


@dataclass(frozen=True, slots=True)
class Billing:
    """How what AWS does not say is billed; the defaults are the dearer readings.

    Attributes
    ----------
    publish_units : {"message", "batch"}
        Whether SNS rounds each message of a PublishBatch to 64 KiB units, or their sum (as the paper does).
    delivery : {"paid", "free"}
        Whether bytes from SNS to SQS cost ``sns.delivery`` a GB (as in the paper), or nothing.
    storage : {"standard", "express"}
        The class of the buckets that runs use.
    """

    publish_units: str = "message"
    delivery: str = "paid"
    storage: str = "standard"

    def __post_init__(self) -> None:
        for name, known in (
            ("publish_units", ("message", "batch")),
            ("delivery", ("paid", "free")),
            ("storage", ("standard", "express")),
        ):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")


PAPER_BILLING = Billing(publish_units="batch", delivery="paid")
"""The paper's reading, for comparisons."""


@dataclass(frozen=True, slots=True)
class CostLine:
    """One item of a bill: so many units of something, and what they cost."""

    service: str
    item: str
    quantity: float
    unit: str
    usd: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What one inference request costs.

    Attributes
    ----------
    lines : tuple of CostLine
        Everything that is billed.
    samples : int
        Samples of the batch.
    region, date : str
        Of the prices.
    """

    lines: tuple[CostLine, ...]
    samples: int
    region: str
    date: str

    @property
    def usd(self) -> float:
        """Dollars of the request."""
        return sum(line.usd for line in self.lines)

    @property
    def usd_per_sample(self) -> float:
        """Dollars of a sample."""
        return self.usd / self.samples

    def by_service(self) -> dict[str, float]:
        """Return the dollars of each service, all of them named."""
        return {name: sum(line.usd for line in self.lines if line.service == name) for name in SERVICES}

    def to_json(self) -> dict[str, Any]:
        """Return the cost as plain JSON values."""
        return {
            "usd": self.usd,
            "usd_per_sample": self.usd_per_sample,
            "samples": self.samples,
            "region": self.region,
            "prices_of": self.date,
            "services": self.by_service(),
            "lines": [
                {
                    "service": line.service,
                    "item": line.item,
                    "quantity": line.quantity,
                    "unit": line.unit,
                    "usd": line.usd,
                }
                for line in self.lines
            ],
        }


@dataclass(frozen=True, slots=True)
class Bill:
    """Puts quantities and prices together; `month` are the units used before in the month, by price."""

    prices: PriceTable
    month: dict[str, float] = field(default_factory=dict)

    def line(self, service: str, item: str, price: str, quantity: float) -> Iterator[CostLine]:
        """Yield the line, unless there is nothing to bill."""
        if quantity:
            found = self.prices[price]
            already = self.month.get(price, 0.0)
            self.month[price] = already + quantity
            yield CostLine(service, item, quantity, found.unit, found.usd(quantity, already))


def run_cost(
    usage: Usage,
    functions: Iterable[FunctionTime],
    prices: PriceTable,
    *,
    samples: int,
    billing: Billing | None = None,
    month: Mapping[str, float] | None = None,
) -> Cost:
    """Return what one inference request costs.

    Parameters
    ----------
    usage : Usage
        Requests, units and bytes, counted or predicted.
    functions : iterable of FunctionTime
        The time of all functions: from their start to their end, so launch, loading and waiting are in it.
    prices : PriceTable
    samples : int
        Samples of the batch.
    billing : Billing, optional
        How what AWS does not say is read; the dearer way if not given.
    month : mapping of str to float, optional
        Units used before in the same month, by price: they count for the tiers. None if not given.

    Raises
    ------
    SettingError
        There is no price for something that was counted, or no sample.
    """
    if samples < 1:
        raise SettingError(f"a cost is that of at least 1 sample, not of {samples}")
    unknown = sorted(usage.requests.keys() - _KNOWN)
    if unknown:
        raise SettingError(f"there is no price for requests of kind {unknown[0]!r}")
    billing = billing or Billing()
    bill = Bill(prices, dict(month or {}))
    lines = (
        *lambda_lines(bill, functions),
        *sns_lines(bill, usage, billing),
        *sqs_lines(bill, usage),
        *s3_lines(bill, usage, billing),
    )
    return Cost(lines, samples, prices.region, prices.date)


def lambda_lines(bill: Bill, functions: Iterable[FunctionTime]) -> Iterator[CostLine]:
    """C_lambda = sum over functions of n c_inv + (M / 1024) T c_run."""
    seconds: defaultdict[str, float] = defaultdict(float)
    invocations = 0
    for function in functions:
        seconds[function.architecture] += function.memory_mb / _LAMBDA_GB * function.seconds
        invocations += function.invocations
    for architecture, gb_seconds in sorted(seconds.items()):
        yield from bill.line("Lambda", f"time, {architecture}", f"lambda.{architecture}.gb_second", gb_seconds)
    yield from bill.line("Lambda", "invocations", "lambda.request", invocations)


def sns_lines(bill: Bill, usage: Usage, billing: Billing) -> Iterator[CostLine]:
    """C_sns = S c_pub + Z c_byte: S units as rounded, Z bytes delivered (deliveries themselves are free)."""
    kind = "sns.publish" if billing.publish_units == "batch" else f"sns.publish{EACH_MESSAGE}"
    yield from bill.line("SNS", f"published, each {billing.publish_units} rounded", "sns.publish", _units(usage, kind))
    yield from bill.line("SNS", "sns.manage", "sns.publish", _units(usage, "sns.manage"))
    if billing.delivery == "paid":
        delivered = usage.received_bytes if usage.requests["sns.publish"] else 0
        yield from bill.line("SNS", "delivered bytes", "sns.delivery", delivered / GB)


def sqs_lines(bill: Bill, usage: Usage) -> Iterator[CostLine]:
    """C_sqs = Q c_sqs: Q units of receives (empty ones too), deletes and purges."""
    for kind in _SQS_KINDS:
        yield from bill.line("SQS", kind, "sqs.request", _units(usage, kind))


def s3_lines(bill: Bill, usage: Usage, billing: Billing) -> Iterator[CostLine]:
    """C_s3 = (V + L) c_put + (R + H) c_get [+ bytes, Express]: misses are among the reads, deletes are free."""
    name = "s3" if billing.storage == "standard" else "s3express"
    for kinds, price in ((_PUT_KINDS, "put"), (_GET_KINDS, "get")):
        for kind in kinds:
            yield from bill.line("S3", kind, f"{name}.{price}", _units(usage, kind))
    if billing.storage == "express" and not usage.requests["sns.publish"]:
        yield from bill.line("S3", "bytes up", f"{name}.upload", usage.body_bytes / GB)
        yield from bill.line("S3", "bytes down", f"{name}.retrieval", usage.received_bytes / GB)


def _units(usage: Usage, kind: str) -> int:
    """Return the units of a kind; SettingError where requests were counted and their units were not."""
    requests, units = usage.requests[kind.removesuffix(EACH_MESSAGE)], usage.billed_units[kind]
    if units < requests:
        raise SettingError(f"{requests:,} requests cannot be {units:,} units: {kind!r} was not counted as it is billed")
    return units
