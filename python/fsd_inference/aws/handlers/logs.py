"""Log lines as JSON, and one record of metrics a rank (CloudWatch's embedded metric format).

The dimensions of the metrics are the stack and the channel alone: each value of a dimension is a metric that is billed,
so run ids are properties of the record, which Logs Insights can ask for.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping

from fsd_inference.rank_report import RankReport

NAMESPACE = "FSD-Inference"

_METRICS = {
    "RankSeconds": "Seconds",
    "ComputeSeconds": "Seconds",
    "WaitSeconds": "Seconds",
    "LoadSeconds": "Seconds",
    "Requests": "Count",
    "WireBytes": "Bytes",
    "PeakMemory": "Bytes",
    "Errors": "Count",
}


class Log:
    """Writes lines to standard output, where Lambda takes them from; each is whole once `line` returns.

    Parameters
    ----------
    **fields
        What every line says: run, attempt, rank.
    """

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def line(self, message: str, *, level: str = "INFO", **more: object) -> None:
        """Write a line; `more` are its own fields."""
        head = {"time": round(time.time(), 3), "level": level, "message": message}
        _write({**head, **self._fields, "trace": _trace_id(), **more})

    def rank_metrics(self, stack: str, channel: str, report: RankReport) -> None:
        """Write the metrics of a rank from its report."""
        values = {
            "RankSeconds": report.lived_s,
            "ComputeSeconds": report.compute_s,
            "WaitSeconds": report.wait_s,
            "LoadSeconds": report.load_s,
            "Requests": report.usage.requests.total(),
            "WireBytes": report.usage.wire_bytes,
            "PeakMemory": report.peak_rss_bytes,
            "Errors": int(report.error is not None),
        }
        definition = {
            "Namespace": NAMESPACE,
            "Dimensions": [["Stack", "Channel"]],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in _METRICS.items()],
        }
        directive = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [definition]}
        _write({"_aws": directive, "Stack": stack, "Channel": channel, **values, **self._fields})


def _write(value: Mapping[str, object]) -> None:
    print(json.dumps(value, default=str), flush=True)  # noqa: T201 - Lambda logs standard output


def _trace_id() -> str | None:
    """Return the root of the trace that the invocation is part of, as X-Ray names it."""
    parts = os.environ.get("_X_AMZN_TRACE_ID", "").split(";")
    return next((part.removeprefix("Root=") for part in parts if part.startswith("Root=")), None)
