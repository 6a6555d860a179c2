"""The report of a rank, built from its event log and its counters."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fsd_inference.engine.memory import peak_rss_bytes
from fsd_inference.errors import RunError
from fsd_inference.kernels import simd_path
from fsd_inference.rank_report import Interval, LayerReport, LeftOut, Position, RankReport, SentTo

_COLUMNS = {"boundary": "compute_s", "interior": "compute_s", "all": "compute_s", "digest": "compute_s"} | {
    name: f"{name}_s" for name in ("unpack", "pack", "wait", "send")
}
_MICROSECOND = 6  # decimals of seconds
_RUN_EVENTS = 500_000
_RANK_EVENTS = (500, 4_000)


def most_events(workers: int) -> int:
    """Return the maximum number of events in a rank's report: fewer with many ranks, as one session reads them all."""
    least, most = _RANK_EVENTS
    return max(least, min(most, _RUN_EVENTS // workers))


def longest(intervals: Sequence[Interval], count: int) -> tuple[list[Interval], dict[str, LeftOut]]:
    """Return the `count` longest intervals in order of start, and the number and total seconds of the rest by name."""
    by_length = sorted(intervals, key=lambda interval: interval.end - interval.start, reverse=True)
    left_out: dict[str, LeftOut] = {}
    for interval in by_length[count:]:
        number, seconds = left_out.get(interval.name, (0, 0.0))
        left_out[interval.name] = LeftOut(number + 1, seconds + interval.end - interval.start)
    return sorted(by_length[:count], key=lambda interval: interval.start), left_out


def activity_report(
    *,
    rank: int,
    starter: int | None,
    started: float,
    ended: float,
    workers: int,
    layers: int,
    intervals: Sequence[Interval],
    sent: Sequence[tuple[int, int, float]],
    requests: Sequence[int] = (),
) -> RankReport:
    """Return the part of a rank's report that follows from its event log; usage, process and result are left out.

    Parameters
    ----------
    rank, starter : int
        This rank and the one that started it (None: the session did).
    started, ended : float
        When its process started and ended, seconds since the epoch.
    workers : int
        P, which determines the maximum number of reported events.
    layers : int
        L; 0 if not even the first layer was loaded.
    intervals : sequence of Interval
        The event log.
    sent : sequence of (layer, frames, bytes)
        Frames handed to the channel, one entry per send.
    requests : sequence of int, optional
        Cumulative number of requests once the first layer was loaded, and at the end of each layer.
    """
    table = _layers(layers, intervals, sent, requests)
    events, left_out = longest(intervals, most_events(workers))
    return RankReport(
        rank=rank,
        starter=starter,
        started=started,
        ended=ended,
        load_requests=requests[0] if requests else 0,
        load_s=sum(each.end - each.start for each in intervals if each.name == "load"),
        compute_s=sum(layer.compute_s for layer in table),
        unpack_s=sum(layer.unpack_s for layer in table),
        pack_s=sum(layer.pack_s for layer in table),
        wait_s=sum(layer.wait_s for layer in table),
        send_s=sum(layer.send_s for layer in table),
        layers=table,
        events=tuple(
            each._replace(start=round(each.start, _MICROSECOND), end=round(each.end, _MICROSECOND)) for each in events
        ),
        events_left_out={
            name: each._replace(seconds=round(each.seconds, _MICROSECOND)) for name, each in left_out.items()
        },
    )


def _layers(
    layers: int, intervals: Sequence[Interval], sent: Sequence[tuple[int, int, float]], requests: Sequence[int]
) -> tuple[LayerReport, ...]:
    """Return, for each layer, the seconds of each activity and the numbers of frames, bytes and requests."""
    seconds: list[defaultdict[str, float]] = [defaultdict(float) for _ in range(layers)]
    volumes = [[0, 0] for _ in range(layers)]
    for name, layer, _, start, end in intervals:
        if name in _COLUMNS and 0 <= layer < layers:
            seconds[layer][_COLUMNS[name]] += end - start
    for layer, frames, size in sent:
        if 0 <= layer < layers:  # layer L is the gather, which no layer's row counts
            volumes[layer][0] += frames
            volumes[layer][1] += round(size)
    return tuple(
        LayerReport(
            **{name: round(value, _MICROSECOND) for name, value in seconds[layer].items()},
            frames=volumes[layer][0],
            bytes=volumes[layer][1],
            requests=requests[layer + 1] - requests[layer] if layer + 1 < len(requests) else 0,
        )
        for layer in range(layers)
    )


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
    position: Position | None = None,
    init_s: float = 0.0,
    digests: Sequence[int] = (),
    checkpoints: Sequence[int] = (),
) -> RankReport:
    """Return the report of this process's rank, with the current time as its end; `usage` is left to the caller.

    Parameters
    ----------
    rank, starter, started, workers, layers, intervals, sent, requests
        As for `activity_report`.
    sent_to : mapping of int to (frames, bytes)
        Frames sent, by target; a frame with several targets counts for each of them.
    result_bytes : int
        Size of the object with this rank's results in bytes; 0 if there is none.
    error : RunError, optional
        Why the rank failed.
    position : Position, optional
        Where it was when it failed.
    init_s : float, optional
        Seconds of its function's init phase; 0 if the environment was warm, or if it is no function.
    digests : sequence of int, optional
        Digest of its part of each layer, or any number of 64-bit digests that add up to it; left out if it failed.
    checkpoints : sequence of int, optional
        Size of each checkpoint that it stored in bytes.
    """
    activity = activity_report(
        rank=rank,
        starter=starter,
        started=started,
        ended=time.time(),
        workers=workers,
        layers=layers,
        intervals=intervals,
        sent=sent,
        requests=requests,
    )
    return replace(
        activity,
        process=os.getpid(),
        init_s=round(init_s, _MICROSECOND),
        result_bytes=result_bytes,
        checkpoints=len(checkpoints),
        checkpoint_bytes=sum(checkpoints),
        peak_rss_bytes=peak_rss_bytes(),
        simd=simd_path(),
        sent_to=tuple(SentTo(target, *sent_to[target]) for target in sorted(sent_to)),
        digests=() if error else tuple(digest % 2**64 for digest in digests),
        error=None if error is None else error.record(),
        position=position,
    )
