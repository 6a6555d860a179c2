"""Values of timing from what runs reported: latencies, bandwidth, starts, the caller's share."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.forecast.timing import Sourced
from fsd_inference.rank_report import RankReport
from fsd_inference.run_report import RunReport

_LEAST = 20
"""Observations that a percentile needs at least."""


def fit_services(reports: Sequence[RunReport]) -> dict[str, Sourced]:
    """Return the values that the reports show.

    A send is as long as its slowest request, which is taken for the latency of all. From the last of its sources' sends
    until a rank that waits has its frames, a message is delivered and received (`queue`), or an object is found and
    read (`object`): half of it each.

    Parameters
    ----------
    reports : sequence of RunReport
        Of runs over `queue` or `object`.

    Raises
    ------
    SettingError
        There is nothing to learn from.
    FileFormatError
        A report does not say what its ranks did when.
    """
    reports = [report for report in reports if _is_of_services(report)]
    if not reports:
        raise SettingError("services are fitted on runs of at least 2 workers over queue or object; give some")
    source = f"fitted on {len(reports)} runs, {time.strftime('%Y-%m-%d')}"
    found: dict[str, Sourced] = {}
    for channel, sending, receiving in (("queue", "publish", ("deliver", "receive")), ("object", "put", ("get",))):
        of_channel = [report for report in reports if report.channel == channel]
        sends: list[tuple[float, float]] = []
        lags: list[float] = []
        for report in of_channel:
            ranks = _ranks(report)
            sends += [each for rank in ranks for each in rank.sends()]
            lags += _lags(ranks)
        if len(sends) >= _LEAST:
            seconds, slope = _without_bytes(np.array(sends))
            _put(found, sending, seconds, source)
            if slope > 0:
                found["connection.bytes_per_s"] = Sourced(1 / slope, source)
        if len(lags) >= _LEAST:
            for name in receiving:
                _put(found, name, np.array(lags) / 2, source)
    starts = [start for report in reports for start in _starts(report)]
    if len(starts) >= _LEAST:
        _put(found, "begin", np.array(starts), source)
    return found | _client(reports, source)


def check_report(report: RunReport) -> None:
    """Raise FileFormatError if services cannot be fitted on a report because of what it says of its ranks."""
    if _is_of_services(report):
        _ranks(report)


def _is_of_services(report: RunReport) -> bool:
    return report.channel in {"queue", "object"} and report.workers > 1


class _Rank:
    """What fits are made of in one rank's report."""

    def __init__(self, report: RankReport) -> None:
        if report.started is None or report.ended is None:
            raise FileFormatError(f"rank {report.rank} of the report does not say when it started and ended")
        self.number, self.starter = report.rank, report.starter
        self.started, self.ended = report.started, report.ended
        self.bytes = [layer.bytes for layer in report.layers]
        self.targets = {sent.target for sent in report.sent_to or ()}
        self.ends: dict[str, dict[tuple[int, int], tuple[float, float]]] = defaultdict(dict)
        for name, layer, micro_batch, start, end in report.events:
            self.ends[name][layer, micro_batch] = start, end

    def sends(self) -> list[tuple[float, float]]:
        """Return the seconds and bytes of each send of a step."""
        parts: Counter[int] = Counter()
        for layer, _ in self.ends["send"]:
            parts[layer] += 1
        return [
            (end - start, self.bytes[layer] / parts[layer])
            for (layer, _), (start, end) in self.ends["send"].items()
            if 0 <= layer < len(self.bytes)
        ]


def _ranks(report: RunReport) -> list[_Rank]:
    if not report.ranks:
        raise FileFormatError("'ranks' is empty: no rank says what it did when")
    return [_Rank(each) for each in report.ranks]


def _lags(ranks: Sequence[_Rank]) -> list[float]:
    """Return how long after the last send to them ranks had what they waited for."""
    found = []
    for rank in ranks:
        sources = [other for other in ranks if rank.number in other.targets]
        for (layer, micro_batch), (start, end) in rank.ends["wait"].items():
            sent = [
                other.ends["send"][layer - 1, micro_batch][1]
                for other in sources
                if (layer - 1, micro_batch) in other.ends["send"]
            ]
            # Where all had been sent before it waited, it was its own receiving that took time.
            if sent and start < max(sent) < end:
                found.append(end - max(sent))
    return found


def _starts(report: RunReport) -> list[float]:
    ranks = _ranks(report)
    started = {rank.number: rank.started for rank in ranks}
    return [
        rank.started - started[rank.starter] for rank in ranks if rank.starter is not None and rank.starter in started
    ]


def rest_s(run: RunReport) -> float:
    """Return what a run took beside its ranks: before the first was launched and after the last had ended."""
    times = [(rank.started, rank.ended) for rank in _ranks(run)]
    launched = max(started for started, _ in times) - run.launch_s
    return max(0.0, run.wall_s - (max(ended for _, ended in times) - launched))


def _without_bytes(sends: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the seconds of sends without what their bytes took, and those of a byte: 0 if there is no telling."""
    seconds, sizes = np.maximum(sends[:, 0], 0.0), sends[:, 1]
    if sizes.max() < 4 * max(1.0, float(np.median(sizes))):
        return seconds, 0.0
    slope = max(0.0, float(np.polyfit(sizes, seconds, 1)[0]))
    return np.maximum(seconds - slope * sizes, 0.0), slope


def _put(found: dict[str, Sourced], name: str, seconds: NDArray[np.float64], source: str) -> None:
    median, p99 = (max(0.0, float(value)) for value in np.percentile(seconds, (50, 99)))
    found[f"{name}.median_s"], found[f"{name}.p99_s"] = Sourced(median, source), Sourced(max(p99, median), source)


def _client(reports: Sequence[RunReport], source: str) -> dict[str, Sourced]:
    """Return what the caller takes, and what a lane takes beside."""
    with_lane = [rest_s(report) for report in reports if report.channel == "queue"]
    without = [rest_s(report) for report in reports if report.channel != "queue"]
    alone = float(np.median(without)) if without else 0.0
    lane = max(0.0, float(np.median(with_lane)) - alone) if with_lane else 0.0
    values = {"client.before_s": 0.0, "client.after_s": alone, "lane.s": lane}
    return {name: Sourced(value, source) for name, value in values.items()}
