"""Comparison of the cost model with the runs that the paper's authors measured on AWS.

The figures (``data/paper``, one row a run) are from "FSD-Inference: Fully Serverless Distributed Inference with
Scalable Cloud Communication", ICDE 2024, arXiv 2403.15195: batches of 10,000 samples, 120 layers. The authors' billing
rules: SNS rounds each batch up to 64 KiB units; message bodies delivered from SNS to SQS are billed by the byte; only
polls of SQS are billed; a run has P workers and one function that starts it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from fsd_inference.cost.model import PAPER_BILLING, Cost, run_cost
from fsd_inference.cost.prices import PriceTable, parse_prices
from fsd_inference.prediction import FunctionTime
from fsd_inference.usage import Usage

SOURCE = "arXiv 2403.15195"
_DATA = resources.files("fsd_inference.cost") / "data" / "paper"
_PARTS = {"queue": ("Lambda", "SNS", "SQS"), "object": ("Lambda", "S3")}


@dataclass(frozen=True, slots=True)
class PaperRun:
    """A run that the paper's authors measured.

    Attributes
    ----------
    channel : {"queue", "object"}
    neurons, layers, samples, workers : int
        Neurons in each layer, layers, samples in the batch, and workers P.
    partition : str
        Method that assigned neurons to workers.
    usage : Usage
        Requests, billing units and bytes that the authors counted.
    function : FunctionTime or None
        Time of all functions; None where the authors' cost sheet gives no memory size.
    usd : mapping of str to float
        Costs in dollars that the authors computed, by service; empty for rows without costs.
    figures : mapping of str to str
        All columns as published.
    """

    channel: str
    neurons: int
    layers: int
    samples: int
    workers: int
    partition: str
    usage: Usage
    function: FunctionTime | None
    usd: Mapping[str, float]
    figures: Mapping[str, str]

    @property
    def total_usd(self) -> float | None:
        """Cost of the run in dollars as the authors computed it; None for rows without costs."""
        return float(self.figures["cost_total_usd"]) if self.usd else None


@dataclass(frozen=True, slots=True)
class PaperComparison:
    """A measured run, the model's cost of it, and the model's relative `errors` by service and for the total."""

    run: PaperRun
    cost: Cost
    errors: Mapping[str, float]

    @property
    def largest_error(self) -> float:
        """The largest absolute relative error."""
        return max(map(abs, self.errors.values()), default=0.0)


@cache
def paper_prices() -> PriceTable:
    """Return the unit prices behind the authors' costs."""
    return parse_prices((_DATA / "prices.json").read_text(encoding="utf-8"), "prices.json")


@cache
def paper_runs() -> tuple[PaperRun, ...]:
    """Return all runs that the authors measured, those over `queue` first."""
    return tuple(
        _run(channel, row)
        for channel in _PARTS
        for row in csv.DictReader(io.StringIO((_DATA / f"{channel}.csv").read_text(encoding="utf-8")))
    )


def compare(run: PaperRun) -> PaperComparison | None:
    """Compare the model's cost of a run with the authors'; return None for rows without costs or memory size."""
    total = run.total_usd
    if total is None or run.function is None:
        return None
    cost = run_cost(run.usage, [run.function], paper_prices(), samples=run.samples, billing=PAPER_BILLING)
    model = cost.by_service()
    errors = {service: model[service] / usd - 1 for service, usd in run.usd.items()}
    return PaperComparison(run, cost, {**errors, "total": cost.usd / total - 1})


def _run(channel: str, row: Mapping[str, str]) -> PaperRun:
    workers = int(row["workers"])
    memory = row["memory_mb"]
    # One more invocation: the function that starts the run.
    function = FunctionTime(int(memory), "x86_64", float(row["sum_lambda_runtime_s"]), workers + 1) if memory else None
    usd = {service: float(row[f"cost_{service.lower()}_usd"]) for service in _PARTS[channel] if row["cost_total_usd"]}
    return PaperRun(
        channel=channel,
        neurons=int(row["neurons"]),
        layers=int(row["layers"]),
        samples=int(row["batch"]),
        workers=workers,
        partition=row.get("partition", "hypergraph"),
        usage=_queue_usage(row) if channel == "queue" else _object_usage(row),
        function=function,
        usd=usd,
        figures=dict(row),
    )


def _queue_usage(row: Mapping[str, str]) -> Usage:
    polls, sent = int(row["poll_calls"]), int(row["bytes_sent"])
    return Usage(
        Counter({"sns.publish": int(row["publish_calls"]), "sqs.receive": polls}),
        Counter({"sns.publish": int(row["publish_requests_billed"]), "sqs.receive": polls}),
        frames=int(row["messages_sent"]),
        body_bytes=sent,
        # Each message has one receiver. Their bytes_received also counts messages that SQS returned a second time,
        # which SNS delivered, and billed, only once.
        received_bytes=sent,
    )


def _object_usage(row: Mapping[str, str]) -> Usage:
    requests = Counter({f"s3.{kind}": int(row[f"{kind}s"]) for kind in ("put", "get", "list")})
    return Usage(
        requests,
        requests.copy(),
        frames=int(row["puts"]),
        body_bytes=int(row["bytes_written"]),
        received_bytes=int(row["bytes_read"]),
    )
