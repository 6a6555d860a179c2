"""The report of a run, and the file `report.json` that stores it."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from fsd_inference.atomic import filled_directory, write_text
from fsd_inference.channel_names import current_name
from fsd_inference.digests import Digests
from fsd_inference.errors import FileFormatError
from fsd_inference.fields import Fields, parse_json
from fsd_inference.prediction import Prediction
from fsd_inference.rank_report import RankReport
from fsd_inference.stragglers import Straggler, find_stragglers
from fsd_inference.usage import Usage

REPORT_FILE = "report.json"

_VERSION = 1  # of report.json
_MOST = 65_535  # workers, replicas, layers and attempts: pages have a row or a column for each


class EarlierFunctions(NamedTuple):
    """The functions of the attempts before the last: how many, and their billed seconds, init phases included."""

    workers: int = 0
    workers_s: float = 0.0
    coordinators: int = 0
    coordinators_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunReport:
    """The figures of one run; all seconds are wall time.

    Attributes
    ----------
    channel : str
        Name of the channel, or ``"serial"``.
    workers : int
        Number of ranks, P.
    samples : int
        Samples in the batch.
    layers : int
        Layers of the network.
    connections : int
        Connections of all layers.
    replicas : int
        Number of serial workers that shared the batch; each has a report in `ranks`.
    wall_s : float
        Seconds from the call of `infer` (on a prepared session) to its return, including all attempts.
    launch_s : float
        Seconds from the start of rank 0 (of the first replica) to the start of the last rank.
    load_s, compute_s : float
        Seconds that the slowest rank spent loading its inputs and its first layer, and computing.
    peak_rss_bytes : int
        Peak resident memory in bytes: the maximum over the ranks (serial: of this process).
    row_sends : int
        Number of (row, target) pairs in the exchange plan.
    usage : Usage
        Requests and bytes of all ranks and of the session since the call of `infer`: leases and their release, the
        input, the exchange, results, reports and cleanup. It excludes the work that `prepare` does once per session
        (the stack, the upload of shards), and the requests of ranks that were killed before they reported.
    attempts : int
        Number of attempts, including the successful one; with replicas, the maximum over them.
    simd : str
        Name of the kernel path in use on the session's machine.
    ranks : list of RankReport
        Reports of the ranks (or replicas) in the successful attempt; of a failed run, of the ranks of the last attempt
        that could still report.
    memory_mb : int or None
        Memory of each worker function in MB; None if the workers were processes.
    coordinators : list of tuple of float
        When each coordinator function of the last attempt (one per replica) started and ended, seconds since the epoch.
    coordinator_init_s : float
        Seconds of the init phases of those coordinators whose environment started cold.
    earlier : EarlierFunctions
        The functions of the attempts before the last, without ranks that were killed before they reported.
    earlier_errors : list of dict
        Why each of those attempts ended (`RunError.record`).
    predicted : Prediction or None
        The prediction made before the run, if any.
    error : dict or None
        Why the run failed (`RunError.record`); None if it succeeded.
    wire : str
        Number format of the exchanged activations; unless it is ``"float32"``, the answer is not that of a serial run
        bit for bit.
    digests : Digests or None
        Digests of the layers, if the run was asked for them and it succeeded.
    resumed_at : int
        The layer at which the last attempt started, from checkpoints; 0 if it started from the input.
    """

    channel: str
    workers: int
    samples: int
    layers: int
    connections: int
    wall_s: float
    launch_s: float
    load_s: float
    compute_s: float
    peak_rss_bytes: int
    row_sends: int
    usage: Usage
    attempts: int
    simd: str
    ranks: list[RankReport] = field(default_factory=list)
    memory_mb: int | None = None
    replicas: int = 1
    coordinators: list[tuple[float, float]] = field(default_factory=list)
    coordinator_init_s: float = 0.0
    predicted: Prediction | None = None
    error: dict[str, Any] | None = None
    wire: str = "float32"
    digests: Digests | None = None
    resumed_at: int = 0
    earlier: EarlierFunctions = field(default_factory=EarlierFunctions)
    earlier_errors: list[dict[str, Any]] = field(default_factory=list)

    @property
    def parts(self) -> int:
        """Number of ranks or replicas, each of which writes a report."""
        return self.workers * self.replicas

    @property
    def rounding(self) -> str | None:
        """What the number format of the exchange does to the answer, as a sentence part; None if nothing."""
        return None if self.wire == "float32" else f"rounded to {self.wire}, so not bit-identical to a serial run"

    @property
    def samples_per_s(self) -> float:
        """Throughput in samples per second of wall time."""
        return self.samples / max(self.wall_s, 1e-9)

    @property
    def gedges_per_s(self) -> float:
        """Throughput in 1e9 edges per second: connections of all layers x samples / compute seconds / 1e9.

        Samples that are dropped because they became all zero count too, as in the Graph Challenge.
        """
        return self.connections * self.samples / max(self.compute_s, 1e-9) / 1e9

    @property
    def stragglers(self) -> list[Straggler]:
        """Ranks that computed much slower than the others; replicas do not wait for each other, and have none."""
        return find_stragglers(self.ranks) if self.replicas == 1 else []

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values: flat keys, including the version of the format, and `ranks`."""
        usage = self.usage
        return {
            "version": _VERSION,
            "channel": self.channel,
            "workers": self.workers,
            "replicas": self.replicas,
            "samples": self.samples,
            "layers": self.layers,
            "connections": self.connections,
            "wall_s": self.wall_s,
            "launch_s": self.launch_s,
            "load_s": self.load_s,
            "compute_s": self.compute_s,
            "samples_per_s": self.samples_per_s,
            "gedges_per_s": self.gedges_per_s,
            "peak_rss_bytes": self.peak_rss_bytes,
            "row_sends": self.row_sends,
            "frames": usage.frames,
            "wire_bytes": usage.wire_bytes,
            "body_bytes": usage.body_bytes,
            "received_bytes": usage.received_bytes,
            "requests": dict(sorted(usage.requests.items())),
            "billed_units": dict(sorted(usage.billed_units.items())),
            "retries": usage.retries,
            "misses": usage.misses,
            "empty_polls": usage.empty_polls,
            "attempts": self.attempts,
            "resumed_at": self.resumed_at,
            "simd": self.simd,
            "wire": self.wire,
            "memory_mb": self.memory_mb,
            "coordinators": [list(span) for span in self.coordinators],
            "coordinator_init_s": self.coordinator_init_s,
            "earlier": self.earlier._asdict(),
            "earlier_errors": self.earlier_errors,
            "predicted": self.predicted and self.predicted.to_json(),
            "error": self.error,
            "stragglers": [straggler._asdict() for straggler in self.stragglers],
            "digests": self.digests and self.digests.to_json(),
            "ranks": [rank.to_json() for rank in self.ranks],
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Rebuild a report from the output of `to_json`; raise FileFormatError if a field is missing or wrong."""
        fields = Fields(value, "", "a run's report")
        # Reports of older releases have no version.
        if (version := fields.take_or("version", _VERSION)) != _VERSION:
            raise FileFormatError(f"reports of version {version} are not known; this release reads {_VERSION}")
        return cls(
            channel=current_name(fields.take("channel", str)),
            workers=fields.take_count("workers", 1, _MOST),
            samples=fields.take_count("samples"),
            layers=fields.take_count("layers", 0, _MOST),
            connections=fields.take_count("connections"),
            wall_s=fields.take_number("wall_s"),
            launch_s=fields.take_number("launch_s"),
            load_s=fields.take_number("load_s"),
            compute_s=fields.take_number("compute_s"),
            peak_rss_bytes=fields.take_count("peak_rss_bytes"),
            row_sends=fields.take_count("row_sends"),
            usage=Usage.from_fields(fields),
            attempts=fields.take_count("attempts", 0, _MOST),
            simd=fields.take("simd", str),
            ranks=[
                RankReport.from_json(each, f"ranks[{index}].") for index, each in enumerate(fields.take("ranks", list))
            ],
            # Reports of older releases lack these fields.
            wire=fields.take_or("wire", "float32"),
            resumed_at=fields.take_count_if("resumed_at") or 0,
            memory_mb=fields.take_count_if("memory_mb", least=1),
            replicas=fields.take_count_if("replicas", 1, _MOST) or 1,
            coordinators=_spans(fields.take_if("coordinators", list), fields.take_if("coordinator", list)),
            coordinator_init_s=fields.take_number_or("coordinator_init_s", 0.0),
            earlier=_earlier(found) if (found := fields.take_if("earlier", dict)) else EarlierFunctions(),
            earlier_errors=_errors(fields.take_if("earlier_errors", list)),
            predicted=Prediction.from_json(found) if (found := fields.take_if("predicted", dict)) else None,
            error=fields.take_if("error", dict),
            digests=Digests.from_fields(Fields(found, "digests."))
            if (found := fields.take_if("digests", dict))
            else None,
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a report from a file, or from ``report.json`` in a directory.

        Raises
        ------
        FileFormatError
            The file cannot be read, or it is not a run's report.
        """
        file = Path(path)
        file = file / REPORT_FILE if file.is_dir() else file
        try:
            data = file.read_bytes()
        except OSError as error:
            raise FileFormatError(f"{file}: cannot be read ({error.strerror})") from error
        return parse_json(data, str(file), cls._of_file)

    @classmethod
    def _of_file(cls, value: object) -> Self:
        try:
            return cls.from_json(value)
        except FileFormatError as error:
            raise FileFormatError(f"is not a run's report: {error}") from error

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``report.json`` into a directory, which is created if necessary, and return its path."""
        with filled_directory(directory) as folder:
            write_text(folder / REPORT_FILE, self.to_text())
        return Path(directory) / REPORT_FILE

    def to_text(self) -> str:
        """Return the report as the text of ``report.json``."""
        return json.dumps(self.to_json())  # faster than json.dump, which encodes piece by piece in Python


def _earlier(value: dict[str, Any]) -> EarlierFunctions:
    fields = Fields(value, "earlier.")
    return EarlierFunctions(
        fields.take_count("workers"),
        fields.take_number("workers_s"),
        fields.take_count("coordinators"),
        fields.take_number("coordinators_s"),
    )


def _errors(errors: list[Any] | None) -> list[dict[str, Any]]:
    found = [error for error in errors or () if isinstance(error, dict)]
    if len(found) != len(errors or ()):
        raise FileFormatError("'earlier_errors' must hold objects only")
    return found


def _spans(spans: list[Any] | None, only: list[Any] | None) -> list[tuple[float, float]]:
    """Return when each coordinator started and ended; a report of an older release has only one (`only`)."""
    found = []
    for span in spans or ([] if only is None else [only]):
        values = span if isinstance(span, list) else []
        times = [time for time in values if isinstance(time, int | float) and math.isfinite(time)]
        if len(values) != 2 or len(times) != 2 or times[1] < times[0]:
            raise FileFormatError(f"'coordinators' must be pairs of times, not {span!r:.60}")
        found.append((times[0], times[1]))
    return found
