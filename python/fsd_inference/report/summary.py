"""The summary printed after a run, and the figures by which runs are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsd_inference.cost.model import Cost
from fsd_inference.digests import digest_text
from fsd_inference.report.figures import RunFigures
from fsd_inference.report.pricing import Priced
from fsd_inference.units import bytes_text, seconds_text, usd_text
from fsd_inference.usage import Usage


@dataclass(frozen=True, slots=True)
class Compared:
    """A run in a comparison: its name, its figures and its cost."""

    name: str
    figures: RunFigures
    priced: Priced

    @property
    def usd(self) -> float | None:
        """Metered cost of the run in USD; None if it is unknown."""
        return None if self.priced.metered is None else self.priced.metered.usd

    def record(self) -> dict[str, Any]:
        """Return the run as plain JSON values."""
        report, cost = self.figures.report, self.priced.metered
        return {
            "run": self.name,
            "channel": report.channel,
            "workers": report.workers,
            "replicas": report.replicas,
            "samples": report.samples,
            "layers": report.layers,
            "failed": report.error is not None,
            "wall_s": report.wall_s,
            "launch_s": report.launch_s,
            "compute_s": report.compute_s,
            "wait_s": self.figures.wait_s,
            "requests": sum(report.usage.requests.values()),
            "wire_bytes": report.usage.wire_bytes,
            "body_bytes": report.usage.body_bytes,
            "usd": None if cost is None else cost.usd,
            "predicted": _prediction(self),
            "usd_per_sample": None if cost is None else cost.usd_per_sample,
            "prices_of": None if cost is None else cost.date,
        }


COLUMNS = (
    "run",
    "channel",
    "P",
    "samples",
    "wall",
    "launch",
    "compute",
    "wait",
    "requests",
    "sent",
    "USD",
    "USD predicted",
    "USD/sample",
)
"""Headers of a table of runs, whose cells `row` returns."""


def row(run: Compared) -> tuple[str, ...]:
    """Return a run as a row of a table: compute time of the slowest rank, mean waiting time of all ranks."""
    report, cost = run.figures.report, run.priced.metered
    predicted = "" if run.priced.predicted is None else usd_text(run.priced.predicted.usd)
    costs = ("?", "", "?") if cost is None else (usd_text(cost.usd), predicted, usd_text(cost.usd_per_sample))
    return (
        run.name if report.error is None else f"{run.name} (failed)",
        report.channel,
        f"{report.workers:,}" if report.replicas == 1 else f"{report.workers:,} x {report.replicas:,}",
        f"{report.samples:,}",
        *(seconds_text(each) for each in (report.wall_s, report.launch_s, report.compute_s, run.figures.wait_s)),
        f"{sum(report.usage.requests.values()):,}",
        bytes_text(report.usage.wire_bytes),
        *costs,
    )


def summary(figures: RunFigures, priced: Priced) -> Sequence[tuple[str, str]]:
    """Return the (name, text) rows that summarize a run."""
    report, usage = figures.report, figures.report.usage
    rows = [
        ("wall time", f"{seconds_text(report.wall_s)} ({report.samples_per_s:,.0f} samples/s)"),
        ("compute", f"{seconds_text(report.compute_s)} ({report.gedges_per_s:.2f} Gedge/s, kernel {report.simd})"),
    ]
    requests = ", ".join(f"{count:,} {kind}" for kind, count in sorted(usage.requests.items())) or "none"
    if report.replicas > 1:
        spans = sorted(rank.lived_s for rank in figures.ranks if rank.lived_s is not None)
        lived = f", which took {seconds_text(spans[0])} to {seconds_text(spans[-1])}" if spans else ""
        rows.append(("replicas", f"{report.replicas:,} over slices of the batch{lived}"))
        rows += [("requests", requests)] if usage.requests else []
    if report.workers > 1:
        waited = f"{seconds_text(figures.wait_s)} for frames (mean rank); launch {seconds_text(report.launch_s)}"
        sent = f"{report.row_sends:,} row_sends, {usage.frames:,} frames, {bytes_text(usage.wire_bytes)}"
        rows += [
            ("waiting", waited),
            ("exchanged", sent if report.rounding is None else f"{sent}, {report.rounding}"),
            ("requests", requests),
        ]
    if report.digests is not None and report.digests.layers:
        rows.append(("digests", f"of {report.layers:,} layers, the last one {digest_text(report.digests.layers[-1])}"))
    cost = priced.metered
    if cost is not None:
        services = ", ".join(f"{name} {usd_text(usd)}" for name, usd in cost.by_service().items() if usd)
        size = "" if report.memory_mb else ", if its processes were functions"
        rows.append(("cost", f"USD {usd_text(cost.usd)}{size} ({services}; prices of {cost.region}, {cost.date})"))
    if report.predicted is not None:
        prediction = report.predicted
        rows.append(("predicted", _totals(prediction.usage, prediction.wall_s, priced.predicted)))
        rows.append(("metered", _totals(usage, report.wall_s, cost)))
    return rows


def _totals(usage: Usage, wall_s: float | None, cost: Cost | None) -> str:
    """Return the predicted or the metered totals of a run in one line."""
    totals = [] if wall_s is None else [seconds_text(wall_s)]
    totals.append(f"{sum(usage.requests.values()):,} requests, {bytes_text(usage.body_bytes)} sent")
    totals += [] if cost is None else [f"USD {usd_text(cost.usd)}"]
    return ", ".join(totals)


def _prediction(run: Compared) -> dict[str, Any] | None:
    """Return the prediction of a run as plain JSON values."""
    prediction = run.figures.report.predicted
    if prediction is None:
        return None
    return {
        "wall_s": prediction.wall_s,
        "requests": sum(prediction.usage.requests.values()),
        "wire_bytes": prediction.usage.wire_bytes,
        "body_bytes": prediction.usage.body_bytes,
        "usd": None if run.priced.predicted is None else run.priced.predicted.usd,
    }
