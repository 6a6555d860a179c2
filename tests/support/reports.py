"""Synthetic reports of runs with any number of workers and layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fsd_inference.rank_report import RankReport
from fsd_inference.report import Report
from fsd_inference.usage import Usage

BEGAN = 1_780_000_000.0
_STEP_S = 0.1


def rank_value(rank: int, workers: int, layers: int) -> dict[str, Any]:
    """Return the JSON report of a rank of an earlier release, which sends to the next two ranks after each layer."""
    began = BEGAN + 0.05 * rank
    first = began + 0.8
    events: list[list[Any]] = [["load", -1, 0, began + 0.3, first]]
    for layer in range(layers):
        at = first + layer * _STEP_S
        steps = [("wait", 0, 0.05), ("unpack", 0.05, 0.06), ("boundary", 0.06, 0.07), ("pack", 0.07, 0.075)]
        steps += [("send", 0.075, 0.19), ("interior", 0.075, 0.1), ("receive", 0.04, 0.04)]
        events += [[name, layer, 0, at + start, at + end] for name, start, end in steps]
    targets = sorted({(rank + 1) % workers, (rank + 2) % workers} - {rank})
    usage = Usage(Counter({"s3.get": 3}), Counter({"s3.get": 3}), frames=layers, wire_bytes=1000 * layers)
    return {
        "rank": rank,
        "started": began,
        "ended": first + layers * _STEP_S + 0.1,
        "load_s": 0.5,
        "compute_s": 0.035 * layers,
        "wait_s": 0.05 * layers,
        "peak_rss_bytes": 80_000_000,
        "layers": [
            {
                "compute_s": 0.035,
                "unpack_s": 0.01,
                "pack_s": 0.005,
                "wait_s": 0.05,
                "send_s": 0.1,
                "frames": 1,
                "bytes": 1000 + 10 * layer,
                "requests": 2,
            }
            for layer in range(layers)
        ],
        "events": events,
        "events_left_out": {"receive": [7, 0.0]},
        "sent_to": [[target, layers, 600 * layers + target] for target in targets],
        "error": None,
        "usage": usage.to_json(),
    }


def made_up(workers: int, layers: int = 6, **changes: Any) -> Report:
    """Return the report of a synthetic run over `queue`; `changes` replace fields (`ranks`: as from `rank_value`)."""
    ranks = changes.pop("ranks", None)
    if ranks is None:
        ranks = [rank_value(rank, workers, layers) for rank in range(workers)]
    fields: dict[str, Any] = {
        "channel": "queue",
        "workers": workers,
        "samples": 500,
        "layers": layers,
        "connections": 32 * 1024 * layers,
        "wall_s": 3.0 + layers * _STEP_S,
        "launch_s": 0.05 * (workers - 1) + 0.1,
        "load_s": 0.5,
        "compute_s": 0.035 * layers,
        "peak_rss_bytes": 80_000_000,
        "row_sends": 100,
        "usage": Usage(
            Counter({"sns.publish": 40, "sqs.receive": 90, "s3.put": 12}),
            Counter({"sns.publish": 40, "sns.publish.messages": 80, "sqs.receive": 90, "s3.put": 12}),
            frames=workers * layers,
            wire_bytes=1000 * layers * workers,
            body_bytes=1400 * layers * workers,
            received_bytes=10**6,
        ),
        "attempts": 1,
        "simd": "avx2",
        "ranks": [RankReport.from_json(rank, f"ranks[{index}].") for index, rank in enumerate(ranks)],
    }
    return Report(**(fields | changes))
