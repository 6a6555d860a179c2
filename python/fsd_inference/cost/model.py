"""The cost model: converts the counted or predicted usage of a run to US dollars. Formulas: docs/cost-model.md.

A run's cost is the sum of what each service bills: `lambda_lines`, `microvm_lines`, `sns_lines`, `sqs_lines` and
`s3_lines`. `queue` uses all but MicroVMs; `object` and `serial` use neither SNS nor SQS; `direct` uses MicroVMs and S3.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fsd_inference.cost.prices import PriceTable
from fsd_inference.errors import SettingError
from fsd_inference.limits import LARGEST_FUNCTION_MB, MICROVM_MB_PER_VCPU
from fsd_inference.prediction import FunctionTime, MicrovmTime
from fsd_inference.usage import EACH_MESSAGE, RECEIVED_MESSAGES, Usage

GB = 1e9
"""Bytes in a GB of transfer. AWS also uses 2**30, which is cheaper."""
_LAMBDA_GB = 1024
"""MB in a GB of Lambda memory (AWS Lambda pricing)."""
SERVICES = ("Lambda", "SNS", "SQS", "S3")
MICROVM_TIME = ("MicroVM vCPUs, baseline", "MicroVM vCPUs, burst", "MicroVM memory")
"""Items of a bill for the time of MicroVMs."""
SNAPSHOTS = "snapshots read"
"""Item of a bill for launching MicroVMs."""

_PUT_KINDS = ("s3.put", "s3.list", "s3.manage")
_GET_KINDS = ("s3.get", "s3.head")  # whether or not the object exists
_SQS_KINDS = ("sqs.receive", "sqs.delete", "sqs.purge", "sqs.manage")  # receives include empty polls
# DELETE and reading Lambda's settings are free; invocations are billed from the functions' time (`FunctionTime`).
_FREE_KINDS = ("s3.delete", "lambda.invoke", "lambda.settings")
_MICROVM_KINDS = ("microvm.run", "microvm.token", "microvm.connect", "microvm.terminate")  # no price is published
_KNOWN = {*_PUT_KINDS, *_GET_KINDS, *_SQS_KINDS, *_FREE_KINDS, *_MICROVM_KINDS, "sns.publish", "sns.manage"}


@dataclass(frozen=True, slots=True)
class Billing:
    """How to read the billing rules that AWS leaves unclear; docs/cost-model.md gives the reasons for the defaults.

    Attributes
    ----------
    publish_units : {"batch", "message"}
        Whether SNS rounds the total of a PublishBatch up to 64 KiB units, or each of its messages.
    delivery : {"free", "paid"}
        Whether bytes delivered from SNS to SQS cost nothing, or ``sns.delivery`` per GB (as in the paper).
    queue_writes : {"free", "billed"}
        Whether the messages that SNS writes into queues cost nothing, or as much as SQS requests of 64 KiB units.
    storage : {"standard", "express"}
        S3 storage class of the buckets that runs use.
    """

    publish_units: str = "batch"
    delivery: str = "free"
    queue_writes: str = "free"
    storage: str = "standard"

    def __post_init__(self) -> None:
        for name, known in (
            ("publish_units", ("batch", "message")),
            ("delivery", ("free", "paid")),
            ("queue_writes", ("free", "billed")),
            ("storage", ("standard", "express")),
        ):
            if getattr(self, name) not in known:
                raise SettingError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")


PAPER_BILLING = Billing(publish_units="batch", delivery="paid", queue_writes="free")
"""The paper's reading, for comparisons."""


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of a bill: the quantity of a billed item, its unit and its price in dollars."""

    service: str
    item: str
    quantity: float
    unit: str
    usd: float


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one inference request.

    Attributes
    ----------
    lines : tuple of CostLine
        All billed items.
    samples : int
        Number of samples in the batch.
    region, date : str
        AWS region and date of the prices.
    """

    lines: tuple[CostLine, ...]
    samples: int
    region: str
    date: str

    @property
    def usd(self) -> float:
        """Total cost of the request in dollars."""
        return sum(line.usd for line in self.lines)

    @property
    def usd_per_sample(self) -> float:
        """Cost per sample in dollars."""
        return self.usd / self.samples

    def by_service(self) -> dict[str, float]:
        """Return the cost in dollars by service; services that were not used cost 0."""
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
    """A bill that prices quantities and tracks the units used so far in the `month`, by price name, for the tiers."""

    prices: PriceTable
    month: dict[str, float] = field(default_factory=dict)

    def line(self, service: str, item: str, price: str, quantity: float) -> Iterator[CostLine]:
        """Yield the bill's line for a quantity, or nothing if the quantity is 0."""
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
    microvms: Iterable[MicrovmTime] = (),
) -> Cost:
    """Return the cost of one inference request.

    Parameters
    ----------
    usage : Usage
        Requests, billing units and bytes, counted or predicted.
    functions : iterable of FunctionTime
        The time of all functions from start to end, which includes launch, loading and waiting.
    prices : PriceTable
    samples : int
        Number of samples in the batch.
    billing : Billing, optional
        How to read the rules that AWS leaves unclear.
    month : mapping of str to float, optional
        Units already used in the same month, by price name, which decide the price tiers; default: none.
    microvms : iterable of MicrovmTime
        The time of all MicroVMs.

    Raises
    ------
    SettingError
        The price table lacks a price that is needed, the billed units do not match the requests, messages written into
        queues are billed but were not counted, or `samples` is below 1.
    """
    if samples < 1:
        raise SettingError(f"a cost needs at least 1 sample, not {samples}")
    unknown = sorted(usage.requests.keys() - _KNOWN)
    if unknown:
        raise SettingError(f"there is no price for requests of kind {unknown[0]!r}")
    billing = billing or Billing()
    bill = Bill(prices, dict(month or {}))
    lines = (
        *lambda_lines(bill, functions),
        *microvm_lines(bill, microvms, usage),
        *sns_lines(bill, usage, billing),
        *sqs_lines(bill, usage, billing),
        *s3_lines(bill, usage, billing),
    )
    return Cost(lines, samples, prices.region, prices.date)


def lambda_lines(bill: Bill, functions: Iterable[FunctionTime]) -> Iterator[CostLine]:
    """Yield Lambda's lines: C_lambda = sum over functions of n c_inv + (M / 1024) T c_run.

    Functions beyond `LARGEST_FUNCTION_MB` are on Managed Instances, whose time is paid by the month and not by the run.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    invocations = 0
    for function in functions:
        if function.memory_mb <= LARGEST_FUNCTION_MB:
            seconds[function.architecture] += function.memory_mb / _LAMBDA_GB * function.seconds
        invocations += function.invocations
    for architecture, gb_seconds in sorted(seconds.items()):
        yield from bill.line("Lambda", f"time, {architecture}", f"lambda.{architecture}.gb_second", gb_seconds)
    yield from bill.line("Lambda", "invocations", "lambda.request", invocations)


def microvm_lines(bill: Bill, microvms: Iterable[MicrovmTime], usage: Usage) -> Iterator[CostLine]:
    """Yield the lines of Lambda MicroVMs: C_vm = (T v + B) c_vcpu + T m c_gb + L s c_read for each size, + 2 Z c_tr.

    Bytes between MicroVMs are billed in both directions; docs/cost-model.md has the symbols.
    """
    for microvm in microvms:
        baseline_s = microvm.seconds * microvm.memory_mb / MICROVM_MB_PER_VCPU
        gb_seconds = microvm.seconds * microvm.memory_mb / _LAMBDA_GB
        baseline, burst, memory = MICROVM_TIME
        yield from bill.line("Lambda", baseline, "microvm.vcpu_second", baseline_s)
        yield from bill.line("Lambda", burst, "microvm.vcpu_second", microvm.burst_vcpu_s)
        yield from bill.line("Lambda", memory, "microvm.gb_second", gb_seconds)
        read_gb = microvm.launches * microvm.snapshot_gb
        yield from bill.line("Lambda", SNAPSHOTS, "microvm.snapshot_read", read_gb)
    if usage.requests["microvm.connect"]:
        yield from bill.line("Lambda", "bytes between MicroVMs", "microvm.transfer", 2 * usage.received_bytes / GB)


def sns_lines(bill: Bill, usage: Usage, billing: Billing) -> Iterator[CostLine]:
    """Yield SNS's lines: C_sns = S c_pub [+ Z c_byte], for S billed units and Z bytes delivered."""
    kind = "sns.publish" if billing.publish_units == "batch" else f"sns.publish{EACH_MESSAGE}"
    yield from bill.line("SNS", f"published, each {billing.publish_units} rounded", "sns.publish", _units(usage, kind))
    yield from bill.line("SNS", "sns.manage", "sns.publish", _units(usage, "sns.manage"))
    if billing.delivery == "paid":
        delivered = usage.received_bytes if usage.requests["sns.publish"] else 0
        yield from bill.line("SNS", "delivered bytes", "sns.delivery", delivered / GB)


def sqs_lines(bill: Bill, usage: Usage, billing: Billing) -> Iterator[CostLine]:
    """Yield SQS's lines: C_sqs = Q c_sqs [+ W c_sqs], for Q units of the caller's requests and W of SNS's writes."""
    for kind in _SQS_KINDS:
        yield from bill.line("SQS", kind, "sqs.request", _units(usage, kind))
    if billing.queue_writes == "billed" and usage.requests["sns.publish"]:
        if RECEIVED_MESSAGES not in usage.billed_units:
            raise SettingError(
                f"the usage has no {RECEIVED_MESSAGES!r}, the messages that SNS wrote into queues, because an earlier "
                "release counted it; run again, or price it with free queue writes"
            )
        yield from bill.line("SQS", "writes by SNS", "sqs.request", usage.billed_units[RECEIVED_MESSAGES])


def s3_lines(bill: Bill, usage: Usage, billing: Billing) -> Iterator[CostLine]:
    """Yield S3's lines: C_s3 = (V + L) c_put + (R + H) c_get [+ bytes on Express]; reads include misses."""
    name = "s3" if billing.storage == "standard" else "s3express"
    for kinds, price in ((_PUT_KINDS, "put"), (_GET_KINDS, "get")):
        for kind in kinds:
            yield from bill.line("S3", kind, f"{name}.{price}", _units(usage, kind))
    if billing.storage == "express" and not usage.requests["sns.publish"]:
        yield from bill.line("S3", "bytes up", f"{name}.upload", usage.body_bytes / GB)
        yield from bill.line("S3", "bytes down", f"{name}.retrieval", usage.received_bytes / GB)


def _units(usage: Usage, kind: str) -> int:
    """Return the billed units of a kind of request; SettingError if they are fewer than the requests."""
    requests, units = usage.requests[kind.removesuffix(EACH_MESSAGE)], usage.billed_units[kind]
    if units < requests:
        raise SettingError(
            f"the usage has {requests:,} requests but {units:,} billed units of {kind!r}: "
            "count at least one billed unit a request"
        )
    return units
