"""Fitting of timing values (latencies, bandwidth, start times, client overhead) to reports of runs."""

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
"""Fewest observations from which percentiles are computed."""


def fit_services(reports: Sequence[RunReport]) -> dict[str, Sourced]:
    """Estimate the timing values of the services from reports of runs.

    The duration of a send is that of its slowest request, and is used as the latency of all of them. The time from the
    end of a rank's last source's send until the waiting rank has its frames is split in halves: delivering and
    receiving a message (`queue`), or finding and reading an object (`object`).

    Parameters
    ----------
    reports : sequence of RunReport
        Only runs over `queue` or `object` with at least 2 workers are used.

    Returns
    -------
    dict of str to Sourced
        Timing values by name; those with too few observations are left out.

    Raises
    ------
    SettingError
        No report is of a run over `queue` or `object` with at least 2 workers.
    FileFormatError
        A report lacks its ranks, or their start and end times.
    """
    reports = [report for report in reports if _is_of_services(report)]
    if not reports:
        raise SettingError("services are fitted on runs of at least 2 workers over queue or object; give such reports")
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
    """Raise FileFormatError if a report lacks the data of its ranks that fitting the services needs."""
    if _is_of_services(report):
        _ranks(report)


def _is_of_services(report: RunReport) -> bool:
    return report.channel in {"queue", "object"} and report.workers > 1


class _Rank:
    """The data of one rank's report that fitting uses."""

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
        """Return (seconds, bytes) of each send; a layer's bytes are split evenly over its micro-batches."""
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
        raise FileFormatError("'ranks' is empty: the report must have the activities of its ranks")
    return [_Rank(each) for each in report.ranks]


def _lags(ranks: Sequence[_Rank]) -> list[float]:
    """Return the seconds from the end of the last send to a waiting rank until its wait ended."""
    found = []
    for rank in ranks:
        sources = [other for other in ranks if rank.number in other.targets]
        for (layer, micro_batch), (start, end) in rank.ends["wait"].items():
            sent = [
                other.ends["send"][layer - 1, micro_batch][1]
                for other in sources
                if (layer - 1, micro_batch) in other.ends["send"]
            ]
            # If everything had been sent before the rank waited, the wait measures its receive thread, not the latency.
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
    """Return the seconds of a run before its first rank was launched and after its last rank ended."""
    times = [(rank.started, rank.ended) for rank in _ranks(run)]
    launched = max(started for started, _ in times) - run.launch_s
    return max(0.0, run.wall_s - (max(ended for _, ended in times) - launched))


def _without_bytes(sends: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Split sends into latency and transfer: return each send's seconds without transfer, and the seconds per byte.

    The latter is 0 if the sizes vary too little to estimate it. `sends` is n x 2: seconds, bytes.
    """
    seconds, sizes = np.maximum(sends[:, 0], 0.0), sends[:, 1]
    if sizes.max() < 4 * max(1.0, float(np.median(sizes))):
        return seconds, 0.0
    slope = max(0.0, float(np.polyfit(sizes, seconds, 1)[0]))
    return np.maximum(seconds - slope * sizes, 0.0), slope


def _put(found: dict[str, Sourced], name: str, seconds: NDArray[np.float64], source: str) -> None:
    median, p99 = (max(0.0, float(value)) for value in np.percentile(seconds, (50, 99)))
    found[f"{name}.median_s"], found[f"{name}.p99_s"] = Sourced(median, source), Sourced(max(p99, median), source)


def _client(reports: Sequence[RunReport], source: str) -> dict[str, Sourced]:
    """Return the client's overhead, and the additional overhead of a lane over `queue`."""
    with_lane = [rest_s(report) for report in reports if report.channel == "queue"]
    without = [rest_s(report) for report in reports if report.channel != "queue"]
    alone = float(np.median(without)) if without else 0.0
    lane = max(0.0, float(np.median(with_lane)) - alone) if with_lane else 0.0
    values = {"client.before_s": 0.0, "client.after_s": alone, "lane.s": lane}
    return {name: Sourced(value, source) for name, value in values.items()}
