"""The report of one rank: the last object that the rank writes, and part of the report of its run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from fsd_inference.digests import digest_texts, parsed_digests
from fsd_inference.errors import FileFormatError, RunError, run_error_from_record
from fsd_inference.fields import Fields
from fsd_inference.usage import Usage

_VERSION = 1
_LATEST = sys.float_info.max  # whole numbers in JSON may be larger than any float
_NUMBER = (int, float)  # a tuple is checked faster than a union


class Interval(NamedTuple):
    """An activity of a rank, with its `start` and `end` in seconds since the epoch."""

    name: str
    layer: int
    micro_batch: int
    start: float
    end: float


class LeftOut(NamedTuple):
    """The number and the total seconds of the intervals of one name that are not reported individually."""

    number: int
    seconds: float


class Position(NamedTuple):
    """Where a rank was when it failed: its lowest unfinished step, and what held that up.

    Attributes
    ----------
    doing : str
        What the rank did, to follow "was": ``"computing layer 3"``, ``"waiting for rank 2"``.
    layer, micro_batch : int
        The step; layer L stands for the time after the last layer.
    awaited : tuple of int
        Ranks whose frames of the layer before were missing (at layer L: whose summaries), in ascending order.
    """

    doing: str
    layer: int
    micro_batch: int
    awaited: tuple[int, ...]


class SentTo(NamedTuple):
    """The frames and bytes sent to one rank."""

    target: int
    frames: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The figures of a rank for one layer.

    Attributes
    ----------
    compute_s, unpack_s, pack_s, wait_s, send_s : float
        Seconds of each activity; `wait_s` is spent waiting for frames, and sends overlap the other activities.
    frames, bytes : int
        Frames and bytes handed to the channel after the layer.
    requests : int
        Requests made during the layer.
    """

    compute_s: float = 0.0
    unpack_s: float = 0.0
    pack_s: float = 0.0
    wait_s: float = 0.0
    send_s: float = 0.0
    frames: int = 0
    bytes: int = 0
    requests: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the layer as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_fields(cls, fields: Fields) -> LayerReport:
        """Build a layer's figures from their JSON form; raise FileFormatError if a field is missing or wrong."""
        return cls(
            compute_s=fields.take_number("compute_s"),
            unpack_s=fields.take_number("unpack_s"),
            pack_s=fields.take_number("pack_s"),
            wait_s=fields.take_number("wait_s"),
            send_s=fields.take_number("send_s"),
            frames=fields.take_count("frames"),
            bytes=fields.take_count("bytes"),
            requests=fields.take_count("requests"),
        )


@dataclass(frozen=True, slots=True)
class RankReport:
    """The report of one rank, or of one replica.

    Figures that an older release did not report have the default values.

    Attributes
    ----------
    rank : int
        The rank, or the number of the replica.
    starter : int or None
        The rank that started this one; None if the session or the coordinator did.
    process : int or None
        Process id.
    started, ended : float or None
        When its process started and ended, seconds since the epoch on its own clock.
    init_s : float
        Seconds of the init phase of its function, which came before `started`; 0 if the environment was warm.
    result_bytes : int
        Size of the object with its results in bytes; 0 if there is none.
    checkpoints, checkpoint_bytes : int
        Number of checkpoints that it stored, and their bytes.
    load_requests : int
        Requests made until its first layer and its inputs were loaded.
    load_s : float
        Seconds until the first layer and the inputs were loaded; the other layers are loaded while it computes.
    compute_s, unpack_s, pack_s, wait_s, send_s : float
        Seconds of each activity over all layers (see `LayerReport`).
    peak_rss_bytes : int
        Peak resident memory in bytes.
    simd : str
        Name of the kernel path in use on its machine.
    layers : tuple of LayerReport
        Figures of each layer.
    events : tuple of Interval
        The longest intervals of its event log, in order of start.
    events_left_out : mapping of str to LeftOut
        Totals of the other intervals, by name.
    sent_to : tuple of SentTo, or None
        Frames and bytes sent, by ascending target; a frame for several targets counts for each of them. None if not
        reported.
    digests : tuple of int
        Digest of its part of each layer's outputs, 64 bits, if the run was asked for them and it succeeded; else none.
    usage : Usage
        Its requests and bytes, including those for writing this report.
    error : dict or None
        Why it failed (`RunError.record`); None if it succeeded.
    position : Position or None
        Where it was when it failed; None if it succeeded or did not report it.
    """

    rank: int
    starter: int | None = None
    process: int | None = None
    started: float | None = None
    ended: float | None = None
    init_s: float = 0.0
    result_bytes: int = 0
    checkpoints: int = 0
    checkpoint_bytes: int = 0
    load_requests: int = 0
    load_s: float = 0.0
    compute_s: float = 0.0
    unpack_s: float = 0.0
    pack_s: float = 0.0
    wait_s: float = 0.0
    send_s: float = 0.0
    peak_rss_bytes: int = 0
    simd: str = "unknown"
    layers: tuple[LayerReport, ...] = ()
    events: tuple[Interval, ...] = ()
    events_left_out: Mapping[str, LeftOut] = field(default_factory=dict)
    sent_to: tuple[SentTo, ...] | None = None
    digests: tuple[int, ...] = ()
    usage: Usage = field(default_factory=Usage)
    error: dict[str, Any] | None = None
    position: Position | None = None

    @property
    def lived_s(self) -> float | None:
        """Seconds from its start to its end; None if they are not reported."""
        return None if self.started is None or self.ended is None else self.ended - self.started

    @property
    def failure(self) -> RunError | None:
        """The error with which it failed; None if it succeeded."""
        return None if self.error is None else run_error_from_record(self.error)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values, including the version of the format."""
        return {
            "version": _VERSION,
            "rank": self.rank,
            "starter": self.starter,
            "process": self.process,
            "started": self.started,
            "ended": self.ended,
            "init_s": self.init_s,
            "result_bytes": self.result_bytes,
            "checkpoints": self.checkpoints,
            "checkpoint_bytes": self.checkpoint_bytes,
            "load_requests": self.load_requests,
            "load_s": self.load_s,
            "compute_s": self.compute_s,
            "unpack_s": self.unpack_s,
            "pack_s": self.pack_s,
            "wait_s": self.wait_s,
            "send_s": self.send_s,
            "peak_rss_bytes": self.peak_rss_bytes,
            "simd": self.simd,
            "layers": [layer.to_json() for layer in self.layers],
            "events": [list(event) for event in self.events],
            "events_left_out": {name: list(found) for name, found in self.events_left_out.items()},
            "sent_to": None if self.sent_to is None else [list(sent) for sent in self.sent_to],
            "digests": digest_texts(self.digests),
            "usage": self.usage.to_json(),
            "error": self.error,
            "position": None if self.position is None else self.position._asdict(),
        }

    @classmethod
    def from_json(cls, value: object, where: str = "") -> RankReport:
        """Rebuild a report from the output of `to_json`.

        Parameters
        ----------
        value : object
            The parsed JSON. Without a version it is from an earlier release and may lack figures.
        where : str, optional
            Prefix of field names in error messages, for example ``"ranks[0]."``.

        Raises
        ------
        FileFormatError
            The report is from a newer release, or a field, which the error names, is missing or wrong.
        """
        fields = Fields(value, where, "a rank's report")
        version = fields.take_if("version", int)
        if version not in {None, _VERSION}:
            raise FileFormatError(
                f"{where.rstrip('.') or 'a rank'}: reports of version {version} are not known; "
                f"this release reads {_VERSION}"
            )
        if version is None:
            fields.fill(_NOT_SAID)
        layers = fields.take_each("layers")
        if version is None:
            for layer in layers:
                layer.fill(_NOT_SAID_OF_A_LAYER)
        sent_to = fields.take_optional("sent_to", list)
        return cls(
            rank=fields.take_count("rank"),
            starter=fields.take_count_optional("starter"),
            process=fields.take_count_optional("process"),
            started=fields.take_time_optional("started"),
            ended=fields.take_time_optional("ended"),
            init_s=fields.take_number_or("init_s", 0.0),
            result_bytes=fields.take_count("result_bytes"),
            checkpoints=fields.take_count_if("checkpoints") or 0,
            checkpoint_bytes=fields.take_count_if("checkpoint_bytes") or 0,
            load_requests=fields.take_count("load_requests"),
            load_s=fields.take_number("load_s"),
            compute_s=fields.take_number("compute_s"),
            unpack_s=fields.take_number("unpack_s"),
            pack_s=fields.take_number("pack_s"),
            wait_s=fields.take_number("wait_s"),
            send_s=fields.take_number("send_s"),
            peak_rss_bytes=fields.take_count("peak_rss_bytes"),
            simd=fields.take("simd", str),
            layers=tuple(map(LayerReport.from_fields, layers)),
            events=_events(fields.take("events", list), f"{where}events"),
            events_left_out=_left_out(fields.take("events_left_out", dict), f"{where}events_left_out"),
            sent_to=None if sent_to is None else _sent_to(sent_to, f"{where}sent_to"),
            digests=parsed_digests(fields.take_if("digests", list) or [], f"{where}digests"),
            usage=Usage.from_fields(fields.take_fields("usage")),
            error=fields.take_optional("error", dict),
            position=_position(fields.take_if("position", dict), f"{where}position."),
        )


def _events(values: list[Any], where: str) -> tuple[Interval, ...]:
    return tuple(
        sorted(
            (_event(value) or _refuse_event(value, f"{where}[{index}]") for index, value in enumerate(values)),
            key=lambda interval: interval.start,
        )
    )


def _event(value: object) -> Interval | None:
    # The reports of a large run have half a million events, and a match statement takes four times as long.
    if not isinstance(value, list) or len(value) != 5:
        return None
    name, layer, micro_batch, start, end = value
    is_typed = (
        isinstance(name, str)
        and isinstance(layer, int)
        and isinstance(micro_batch, int)
        and isinstance(start, _NUMBER)
        and isinstance(end, _NUMBER)
    )
    return Interval(name, layer, micro_batch, start, end) if is_typed and 0 <= start <= end <= _LATEST else None


def _refuse_event(value: object, where: str) -> NoReturn:
    match value:
        case [_, _, _, int() | float() as start, int() | float() as end] if end < start:
            raise FileFormatError(f"'{where}' ends before it starts")
    raise FileFormatError(f"'{where}' must be a name, two whole numbers and two times, not {value!r:.60}")


def _left_out(values: dict[str, Any], where: str) -> dict[str, LeftOut]:
    found = {}
    for name, value in values.items():
        match value:
            case [int(number), int() | float() as seconds] if number >= 0 and 0 <= seconds <= _LATEST:
                found[name] = LeftOut(number, seconds)
            case _:
                raise FileFormatError(f"'{where}.{name}' must be a whole number and seconds, not {value!r:.60}")
    return found


def _position(value: dict[str, Any] | None, where: str) -> Position | None:
    if value is None:
        return None
    fields = Fields(value, where)
    doing, layer, micro_batch = fields.take("doing", str), fields.take_count("layer"), fields.take_count("micro_batch")
    awaited = fields.take("awaited", list)
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank >= 0 for rank in awaited):
        raise FileFormatError(f"'{where}awaited' must be whole numbers, none of them negative, not {awaited!r:.60}")
    return Position(doing, layer, micro_batch, tuple(awaited))


def _sent_to(values: list[Any], where: str) -> tuple[SentTo, ...]:
    found = []
    for index, value in enumerate(values):
        numbers = value if isinstance(value, list) else []
        if len(numbers) != 3 or not all(isinstance(each, int) and each >= 0 for each in numbers):
            raise FileFormatError(
                f"'{where}[{index}]' must be three whole numbers, none of them negative, not {value!r:.60}"
            )
        found.append(SentTo(*numbers))
    return tuple(found)


_NOT_SAID = {name: value for name, value in RankReport(rank=0).to_json().items() if name not in {"version", "rank"}}
_NOT_SAID_OF_A_LAYER = LayerReport().to_json()
