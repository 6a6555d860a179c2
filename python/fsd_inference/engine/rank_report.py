"""What a rank says of its part in a run: a plain JSON object."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fsd_inference.engine.memory import peak_rss_bytes
from fsd_inference.engine.timeline import Interval
from fsd_inference.errors import RunError
from fsd_inference.kernels import simd_path

_COMPUTE = ("boundary", "interior", "all")
_COLUMNS = ("compute_s", "pack_s", "unpack_s", "wait_s", "send_s")
_MICROSECOND = 6  # decimals of seconds
_RUN_EVENTS = 500_000
_RANK_EVENTS = (500, 4_000)


def most_events(workers: int) -> int:
    """Return how many events a rank reports: fewer where there are many ranks, whose reports one session reads."""
    least, most = _RANK_EVENTS
    return max(least, min(most, _RUN_EVENTS // workers))


def longest(intervals: Sequence[Interval], count: int) -> tuple[list[Interval], dict[str, tuple[int, float]]]:
    """Return the longest intervals, by start, and of the others the number and the seconds by name."""
    by_length = sorted(intervals, key=lambda interval: interval.end - interval.start, reverse=True)
    left_out: dict[str, tuple[int, float]] = {}
    for interval in by_length[count:]:
        number, seconds = left_out.get(interval.name, (0, 0.0))
        left_out[interval.name] = (number + 1, seconds + interval.end - interval.start)
    return sorted(by_length[:count], key=lambda interval: interval.start), left_out


def layer_table(intervals: Sequence[Interval], layers: int) -> list[dict[str, float]]:
    """Return per layer the seconds spent computing, packing, unpacking, waiting for inputs and sending."""
    table: list[dict[str, float]] = [dict.fromkeys(_COLUMNS, 0.0) for _ in range(layers)]
    for name, layer, _, start, end in intervals:
        column = "compute_s" if name in _COMPUTE else f"{name}_s"
        if column in _COLUMNS and 0 <= layer < layers:
            table[layer][column] += end - start
    return table


def rank_report(
    *,
    rank: int,
    starter: int | None,
    started: float,
    workers: int,
    layers: int,
    intervals: Sequence[Interval],
    sent: Sequence[tuple[int, int, int]],
    sent_to: Mapping[int, tuple[int, int]],
    requests: Sequence[int],
    result_bytes: int,
    error: RunError | None,
) -> dict[str, Any]:
    """Build the report, but for the counts of requests.

    Parameters
    ----------
    rank, starter : int
        This rank and the one that started it (None: the session did).
    started : float
        When the process or handler began, seconds since the epoch.
    workers : int
        P, which bounds the events that are reported.
    layers : int
        L; 0 if the shard was never loaded.
    intervals : sequence of Interval
        The event log.
    sent : sequence of (layer, frames, bytes)
        What was handed to the channel.
    sent_to : mapping of int to (frames, bytes)
        The same by target: a frame for several targets counts for each of them.
    requests : sequence of int
        Requests counted once the shard was loaded, and by the time each layer was done, cumulative.
    result_bytes : int
        Of the object with this rank's results; 0 if it has none.
    error : RunError, optional
        How the rank failed.
    """
    table: list[dict[str, Any]] = [dict(row) for row in layer_table(intervals, layers)]
    volumes: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for layer, frames, size in sent:
        volumes[layer][0] += frames
        volumes[layer][1] += size
    for layer, row in enumerate(table):
        row.update({name: round(row[name], _MICROSECOND) for name in _COLUMNS})
        row["frames"], row["bytes"] = volumes[layer]
        row["requests"] = requests[layer + 1] - requests[layer] if layer + 1 < len(requests) else 0
    events, left_out = longest(intervals, most_events(workers))
    return {
        "rank": rank,
        "starter": starter,
        "process": os.getpid(),
        "started": started,
        "ended": time.time(),
        "result_bytes": result_bytes,
        "load_requests": requests[0] if requests else 0,
        "load_s": sum(i.end - i.start for i in intervals if i.name == "load"),
        **{name: sum(row[name] for row in table) for name in _COLUMNS},
        "peak_rss_bytes": peak_rss_bytes(),
        "simd": simd_path(),
        "layers": table,
        "events": [
            [name, layer, micro_batch, round(start, _MICROSECOND), round(end, _MICROSECOND)]
            for name, layer, micro_batch, start, end in events
        ],
        "events_left_out": {name: [count, round(s, _MICROSECOND)] for name, (count, s) in left_out.items()},
        "sent_to": [[target, *sent_to[target]] for target in sorted(sent_to)],
        "error": None if error is None else error.record(),
    }
