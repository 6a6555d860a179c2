"""What a run's report says, checked, and gathered for tables and drawings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields
from fsd_inference.run_report import RunReport

ACTIVITIES = ("compute", "unpack", "pack", "wait", "send")
"""What the seconds of a layer are told apart into; sends go on beside the others."""

_NUMBER = (int, float)  # a tuple is checked faster than a union, and there may be millions
_PHASES = {"boundary": "compute", "interior": "compute", "all": "compute"}


class Slice(NamedTuple):
    """Something that a rank did from `start` to `end` (seconds since the epoch)."""

    name: str
    layer: int
    micro_batch: int
    start: float
    end: float

    @property
    def activity(self) -> str:
        """What it is drawn as: computing, whichever rows; otherwise its name."""
        return _PHASES.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Events that a rank did not report one by one."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LayerFigures:
    """One layer of a rank, or of all: seconds by activity, and what was sent after it and asked for during it."""

    seconds: Mapping[str, float]
    frames: int
    bytes: int
    requests: int


@dataclass(frozen=True, slots=True)
class RankFigures:
    """What one rank reports.

    Attributes
    ----------
    rank : int
    started, ended : float or None
        Seconds since the epoch, by the rank's own clock.
    load_s : float
    seconds : mapping of str to float
        By activity, over all layers.
    requests, wire_bytes, peak_rss_bytes : int
    layers : tuple of LayerFigures
    slices : tuple of Slice
        By start.
    left_out : mapping of str to LeftOut
        By name.
    sent_to : mapping of int to int, or None
        Bytes by target; None if the rank does not say.
    error : str or None
        How it failed.
    """

    rank: int
    started: float | None
    ended: float | None
    load_s: float
    seconds: Mapping[str, float]
    requests: int
    wire_bytes: int
    peak_rss_bytes: int
    layers: tuple[LayerFigures, ...]
    slices: tuple[Slice, ...]
    left_out: Mapping[str, LeftOut]
    sent_to: Mapping[int, int] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class RunFigures:
    """A run's report and its parts, checked.

    Attributes
    ----------
    report : RunReport
    ranks : tuple of RankFigures
        Ascending; replicas count as ranks. None of a serial run in one process.
    start, end : float
        When rank 0 was started and the last rank ended, seconds since the epoch; both 0 where no rank says.
    """

    report: RunReport
    ranks: tuple[RankFigures, ...]
    start: float = 0.0
    end: float = 0.0
    layers: tuple[LayerFigures, ...] = field(default=())

    @property
    def wait_s(self) -> float:
        """Seconds without anything to compute, of the mean rank."""
        return sum(rank.seconds["wait"] for rank in self.ranks) / max(1, len(self.ranks))

    @property
    def part(self) -> str:
        """What those that report are called."""
        return "replica" if self.report.replicas > 1 else "rank"

    def sampled(self, most: int) -> tuple[RankFigures, ...]:
        """Return all ranks, or `most` of them, evenly spread, the first and the last among them."""
        count = len(self.ranks)
        if count <= most:
            return self.ranks
        return tuple(self.ranks[round(i * (count - 1) / (most - 1))] for i in range(most))


def run_figures(report: RunReport) -> RunFigures:
    """Check a report's ranks and gather their figures.

    Raises
    ------
    FileFormatError
        Something is not what a rank reports; what an older release did not report may be missing.
    """
    ranks = tuple(sorted((_rank(value, i) for i, value in enumerate(report.ranks)), key=lambda rank: rank.rank))
    numbers = [rank.rank for rank in ranks]
    if len(set(numbers)) != len(numbers) or not all(0 <= rank < report.parts for rank in numbers):
        raise FileFormatError(f"the ranks of the report must be different ones of {report.parts}, not {numbers!r:.60}")
    starts = [rank.started for rank in ranks if rank.started is not None]
    ends = [rank.ended for rank in ranks if rank.ended is not None]
    start = max(starts) - report.launch_s if starts else 0.0
    return RunFigures(report, ranks, min([start, *starts]), max([start, *ends]), _layer_totals(ranks))


def _layer_totals(ranks: Sequence[RankFigures]) -> tuple[LayerFigures, ...]:
    """Return by layer the mean rank's seconds, and what all ranks sent and asked for."""
    totals = []
    for layer in range(max((len(rank.layers) for rank in ranks), default=0)):
        parts = [rank.layers[layer] for rank in ranks if layer < len(rank.layers)]
        totals.append(
            LayerFigures(
                {name: sum(part.seconds[name] for part in parts) / len(parts) for name in ACTIVITIES},
                sum(part.frames for part in parts),
                sum(part.bytes for part in parts),
                sum(part.requests for part in parts),
            )
        )
    return tuple(totals)


def _rank(value: object, index: int) -> RankFigures:
    where = f"ranks[{index}]."
    fields = Fields(value, where)
    usage = Fields(fields.take_if("usage", dict) or {}, f"{where}usage.")
    requests = Fields(usage.take_if("requests", dict) or {}, f"{where}usage.requests.").rest()
    layers = fields.take_if("layers", list) or []
    events = fields.take_if("events", list) or []
    left_out = Fields(fields.take_if("events_left_out", dict) or {}, f"{where}events_left_out.").rest()
    sent_to = fields.take_if("sent_to", list)
    error = fields.take_if("error", dict)
    slices = [_slice(each, f"{where}events[{i}]") for i, each in enumerate(events)]
    return RankFigures(
        rank=fields.take_or("rank", index),
        started=fields.take_number_if("started"),
        ended=fields.take_number_if("ended"),
        load_s=fields.take_number_or("load_s", 0.0),
        seconds={name: fields.take_number_or(f"{name}_s", 0.0) for name in ACTIVITIES},
        requests=sum(count for count in requests.values() if isinstance(count, int)),
        wire_bytes=usage.take_or("wire_bytes", 0),
        peak_rss_bytes=fields.take_or("peak_rss_bytes", 0),
        layers=tuple(_layer(each, f"{where}layers[{i}].") for i, each in enumerate(layers)),
        slices=tuple(sorted(slices, key=lambda each: each.start)),
        left_out={name: _left_out(each, f"{where}events_left_out.{name}") for name, each in left_out.items()},
        sent_to=None if sent_to is None else _targets(sent_to, f"{where}sent_to"),
        error=None if error is None else str(error.get("message", "it failed")),
    )


def _layer(value: object, where: str) -> LayerFigures:
    fields = Fields(value, where)
    return LayerFigures(
        {name: fields.take_number_or(f"{name}_s", 0.0) for name in ACTIVITIES},
        fields.take_or("frames", 0),
        fields.take_or("bytes", 0),
        fields.take_or("requests", 0),
    )


def _slice(value: object, where: str) -> Slice:
    if not isinstance(value, list) or len(value) != 5 or not isinstance(value[0], str):
        raise FileFormatError(f"'{where}' must be a name and four numbers, not {value!r:.60}")
    layer, micro_batch, start, end = _numbers(value[1:], 4, where)
    if end < start:
        raise FileFormatError(f"'{where}' ends before it starts")
    return Slice(value[0], int(layer), int(micro_batch), start, end)


def _left_out(value: object, where: str) -> LeftOut:
    count, seconds = _numbers(value, 2, where)
    return LeftOut(int(count), seconds)


def _targets(value: list[object], where: str) -> dict[int, int]:
    rows = [_numbers(each, 3, f"{where}[{i}]") for i, each in enumerate(value)]
    return {int(target): int(size) for target, _, size in rows}


def _numbers(value: object, count: int, where: str) -> list[float]:
    numbers = value if isinstance(value, list) else []
    good = [each for each in numbers if isinstance(each, _NUMBER) and math.isfinite(each)]
    if len(numbers) != count or len(good) != count:
        raise FileFormatError(f"'{where}' must hold {count} numbers, not {value!r:.60}")
    return good
