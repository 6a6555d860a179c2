"""The functions' logs: JSON lines, and one metrics record per rank in CloudWatch's embedded metric format.

The only dimensions of the metrics are stack and channel: CloudWatch bills each combination of dimension values as a
metric of its own. Run ids are plain properties of the record, which Logs Insights can query. If the environment
variable FSD_METRICS is "false", the record has the same figures, but CloudWatch makes no metrics of them.
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
    """A logger that writes JSON lines to standard output, from where Lambda sends them to CloudWatch.

    Parameters
    ----------
    **fields
        Fields of every line, such as run, attempt and rank.
    """

    def __init__(self, **fields: object) -> None:
        self._fields = fields

    def line(self, message: str, *, level: str = "INFO", **more: object) -> None:
        """Write and flush a line, with the additional fields `more`."""
        head = {"time": round(time.time(), 3), "level": level, "message": message}
        _write({**head, **self._fields, "trace": _trace_id(), **more})

    def rank_metrics(self, stack: str, channel: str, report: RankReport) -> None:
        """Write the metrics record of a rank, from its report."""
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
        _write({**_directive(), "Stack": stack, "Channel": channel, **values, **self._fields})


def _directive() -> dict[str, object]:
    """Return the field of a record from which CloudWatch makes metrics; nothing if the stack wants none."""
    if os.environ.get("FSD_METRICS") == "false":
        return {}
    definition = {
        "Namespace": NAMESPACE,
        "Dimensions": [["Stack", "Channel"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in _METRICS.items()],
    }
    return {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [definition]}}


def _write(value: Mapping[str, object]) -> None:
    print(json.dumps(value, default=str), flush=True)  # noqa: T201 - Lambda captures standard output as the log


def _trace_id() -> str | None:
    """Return the X-Ray trace id of the invocation, or None if it has none."""
    parts = os.environ.get("_X_AMZN_TRACE_ID", "").split(";")
    return next((part.removeprefix("Root=") for part in parts if part.startswith("Root=")), None)
