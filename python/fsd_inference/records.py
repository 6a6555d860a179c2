"""Plain records that cross rooms: counts, plan volumes, run reports, and their JSON forms."""

from __future__ import annotations

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from fsd_inference.atomic import filled_directory, write_text
from fsd_inference.channel_names import current_name
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import Fields
from fsd_inference.limits import MESSAGE_BYTES

REPORT_FILE = "report.json"

EACH_MESSAGE = ".messages"
"""Ends a kind of billing units in which each message of a batch is rounded up, instead of their sum."""


@dataclass(slots=True)
class Usage:
    """What was asked of the services, counted where each request is made.

    Attributes
    ----------
    requests : Counter
        HTTP requests by kind (``"sns.publish"``, ``"sqs.receive"``, ``"s3.get"``...), retries and misses included.
    billed_units : Counter
        Billing units by kind: 64 KiB units for SNS and SQS, requests for S3. AWS does not say how it rounds a
        PublishBatch, so both ways are counted: ``"sns.publish"`` rounds the batch, ``"sns.publish.messages"`` each
        message.
    retries : int
        Requests that repeated a failed one (also counted in `requests`).
    misses : int
        Reads of objects that were not there (also counted in `requests`).
    empty_polls : int
        Receives that returned nothing (also counted in `requests`).
    frames : int
        Frames handed to the channel, each once, however many targets it has.
    wire_bytes : int
        Bytes of those frames with their headers.
    body_bytes : int
        Bytes as handed to the service, after base64.
    received_bytes : int
        Bytes of bodies as they came from the service.

    Examples
    --------
    >>> from collections import Counter
    >>> import fsd_inference as fsd
    >>> one = fsd.Usage(requests=Counter({"s3.get": 2}))
    >>> (one + one).requests["s3.get"]
    4
    """

    requests: Counter[str] = field(default_factory=Counter)
    billed_units: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    misses: int = 0
    empty_polls: int = 0
    frames: int = 0
    wire_bytes: int = 0
    body_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.billed_units + other.billed_units,
            *(getattr(self, name) + getattr(other, name) for name in _USAGE_TOTALS),
        )

    def __sub__(self, earlier: Usage) -> Usage:
        return Usage(
            self.requests - earlier.requests,
            self.billed_units - earlier.billed_units,
            *(getattr(self, name) - getattr(earlier, name) for name in _USAGE_TOTALS),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON values."""
        return {
            "requests": dict(sorted(self.requests.items())),
            "billed_units": dict(sorted(self.billed_units.items())),
            **{name: getattr(self, name) for name in _USAGE_TOTALS},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Usage:
        """Rebuild the counts from `to_json`."""
        return cls(
            Counter(value["requests"]), Counter(value["billed_units"]), *(int(value[name]) for name in _USAGE_TOTALS)
        )


_USAGE_TOTALS = ("retries", "misses", "empty_polls", "frames", "wire_bytes", "body_bytes", "received_bytes")


@dataclass(frozen=True, slots=True)
class FunctionTime:
    """Time of Lambda functions of one size, as Lambda bills it.

    Attributes
    ----------
    memory_mb : int
    architecture : {"x86_64", "arm64"}
    seconds : float
        From start to end, summed over the invocations: launching, loading and waiting included.
    invocations : int
    """

    memory_mb: int
    architecture: str
    seconds: float
    invocations: int

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise SettingError(f"architecture must be {' or '.join(ARCHITECTURES)}, not {self.architecture!r}")
        if self.memory_mb < 1 or not 0 <= self.seconds < math.inf or self.invocations < 0:
            raise SettingError(
                "a function's time needs at least 1 MB, and no negative seconds or invocations: "
                f"not {self.memory_mb} MB, {self.seconds} s, {self.invocations} invocations"
            )


ARCHITECTURES = ("x86_64", "arm64")


class UsageMeter:
    """A `Usage` that several threads may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = Usage()

    def request(self, kind: str, *, units: int = 1, retry: bool = False) -> None:
        """Count one HTTP request of `kind` that is billed as `units`."""
        with self._lock:
            self._usage.requests[kind] += 1
            self._usage.billed_units[kind] += units
            self._usage.retries += retry

    def more_units(self, kind: str, units: int) -> None:
        """Count further billing units of a request of `kind`, as its answer showed."""
        with self._lock:
            self._usage.billed_units[kind] += units

    def miss(self) -> None:
        """Count a read of an object that was not there (the request itself is counted apart)."""
        with self._lock:
            self._usage.misses += 1

    def empty_poll(self) -> None:
        """Count a receive that returned nothing (the request itself is counted apart)."""
        with self._lock:
            self._usage.empty_polls += 1

    def sent(self, *, frames: int, wire_bytes: int, body_bytes: int) -> None:
        """Count frames handed to the service."""
        with self._lock:
            self._usage.frames += frames
            self._usage.wire_bytes += wire_bytes
            self._usage.body_bytes += body_bytes

    def received(self, body_bytes: int) -> None:
        """Count bytes of bodies that came from the service."""
        with self._lock:
            self._usage.received_bytes += body_bytes

    def snapshot(self) -> Usage:
        """Return a copy of the counts so far."""
        with self._lock:
            return self._usage + Usage()


@dataclass(frozen=True, slots=True)
class PlanVolumes:
    """What a partition makes the workers exchange.

    Attributes
    ----------
    row_sends : int
        (row, target) pairs, summed over the L-1 exchanges.
    largest_sender, largest_receiver : tuple of int
        Per exchange: the most rows that one rank sends, and receives.
    imbalance : float
        The largest rank's connections over the even share, the worst layer.
    seconds : float
        Time the partitioner took.
    """

    row_sends: int
    largest_sender: tuple[int, ...]
    largest_receiver: tuple[int, ...]
    imbalance: float
    seconds: float


@dataclass(frozen=True, slots=True)
class EmulatorInfo:
    """A running emulator: where it answers, its process and the token that process carries, and its directory."""

    endpoint_url: str
    pid: int
    token: str
    directory: str


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """The queues one (run, attempt) holds: a topic for each block of `RANKS_PER_TOPIC` ranks, a queue for each rank."""

    topic_arns: tuple[str, ...]
    queue_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerFunction:
    """A Lambda function that runs ranks: its memory in MB, and its ARN."""

    memory_mb: int
    arn: str


@dataclass(frozen=True, slots=True)
class FunctionsSpec:
    """The Lambda functions of a stack.

    Attributes
    ----------
    coordinator : str
        ARN of the function that carries out runs.
    workers : tuple of WorkerFunction
        One a memory size, ascending.
    failures_queue_url : str
        Where Lambda sends the events of invocations that ended without an answer.
    timeout_s : float
        Longest time of one invocation.
    """

    coordinator: str
    workers: tuple[WorkerFunction, ...]
    failures_queue_url: str
    timeout_s: float

    def worker(self, memory_mb: int) -> WorkerFunction | None:
        """Return the function of that memory size, or None."""
        return next((function for function in self.workers if function.memory_mb == memory_mb), None)


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The deployed resources, as stack.json describes them.

    Attributes
    ----------
    name : str
        What the names of its resources begin with.
    endpoint_url : str or None
        Where the services answer; None for AWS itself.
    region : str
    lanes : tuple of LaneSpec
        All of the same number of ranks; none where runs exchange objects only.
    run_buckets : tuple of str
        Buckets of what a run needs and leaves; their objects expire. Leases are kept in the first.
    network_bucket : str
        Bucket of networks and shards; nothing expires.
    message_bytes : int
        Largest message the topics and queues take.
    longest_run_s : float
        Queues keep and hide messages for longer than this.
    purge_settle_s : float
        How long a purge may go on in a queue after it was asked for: 60 s on AWS.
    functions : FunctionsSpec or None
        The Lambda functions; without them ranks are processes of the session's machine.
    emulator : EmulatorInfo or None
        The emulator that was started for this stack.
    """

    name: str
    endpoint_url: str | None
    region: str
    lanes: tuple[LaneSpec, ...]
    run_buckets: tuple[str, ...]
    network_bucket: str
    message_bytes: int = MESSAGE_BYTES
    longest_run_s: float = 900.0
    purge_settle_s: float = 60.0
    functions: FunctionsSpec | None = None
    emulator: EmulatorInfo | None = None

    @property
    def ranks(self) -> int:
        """The most workers that a run on this stack can have over queues."""
        return len(self.lanes[0].queue_urls) if self.lanes else 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was foreseen of a run before it was made.

    Attributes
    ----------
    usage : Usage
        Requests and bytes.
    functions : tuple of FunctionTime
        Time of workers and coordinator; none where time was not foreseen.
    wall_s : float or None
        From the call to the result; None where time was not foreseen.
    """

    usage: Usage
    functions: tuple[FunctionTime, ...] = ()
    wall_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as plain JSON values."""
        return {
            "usage": self.usage.to_json(),
            "functions": [asdict(function) for function in self.functions],
            "wall_s": self.wall_s,
        }

    @classmethod
    def from_json(cls, value: object) -> Prediction:
        """Rebuild a prediction from `to_json`; FileFormatError names the field that is missing or wrong."""
        fields = Fields(value, "predicted.")
        functions = []
        for index, each in enumerate(fields.take("functions", list)):
            one = Fields(each, f"predicted.functions[{index}].")
            functions.append(
                FunctionTime(
                    one.take("memory_mb", int),
                    one.take("architecture", str),
                    one.take_number("seconds"),
                    one.take("invocations", int),
                )
            )
        where = "predicted.usage."
        usage = _take_usage(Fields(fields.take("usage", dict), where), where)
        return cls(usage, tuple(functions), fields.take_number_if("wall_s"))


_VERSION = 1  # of report.json


@dataclass(frozen=True, slots=True)
class RunReport:
    """Figures of one run; seconds are wall time unless said.

    Attributes
    ----------
    channel, workers, samples, layers, connections
        What was run.
    replicas : int
        Copies of a serial worker that shared the batch; each has a part among `ranks`.
    wall_s : float
        From the call of `infer` (of a prepared session) to the result in hand, all attempts included.
    launch_s : float
        From the start of rank 0 (of the first replica) to the start of the last rank.
    load_s, compute_s : float
        Loading shard and inputs, and computing: of the rank that took longest.
    peak_rss_bytes : int
        Of the rank (serial: this process) that held most.
    row_sends : int
        (row, target) pairs of the plan.
    usage : Usage
        Requests and bytes of all ranks and of the session from the call of `infer` on: leases and their release, the
        input, the exchange, results, reports and cleaning up. Not in it are what `prepare` does once a session (the
        stack, the shards' upload), and what ranks asked for that were killed before they reported.
    attempts : int
        Attempts made, the successful one included; of the replica that took most.
    simd : str
        Kernel path of the session's machine.
    ranks : list of dict
        What each rank (or replica) of the attempt that brought the answer reports of itself; of a failed run, the ranks
        of the last attempt that could still report.
    memory_mb : int or None
        Of the functions that were the workers; None where they were processes.
    coordinators : list of tuple of float
        When the function that carried the run out (each replica's) began and ended, seconds since the epoch.
    predicted : Prediction or None
        What was foreseen of the run, if someone did.
    error : dict or None
        How the run failed (`RunError.record`); None if it brought an answer.
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
    ranks: list[dict[str, Any]] = field(default_factory=list)
    memory_mb: int | None = None
    replicas: int = 1
    coordinators: list[tuple[float, float]] = field(default_factory=list)
    predicted: Prediction | None = None
    error: dict[str, Any] | None = None

    @property
    def parts(self) -> int:
        """Ranks that report: workers, or replicas."""
        return self.workers * self.replicas

    @property
    def samples_per_s(self) -> float:
        """Samples over wall time."""
        return self.samples / max(self.wall_s, 1e-9)

    @property
    def gedges_per_s(self) -> float:
        """Connections of all layers x samples / compute seconds / 1e9, dropped samples counted (Graph Challenge)."""
        return self.connections * self.samples / max(self.compute_s, 1e-9) / 1e9

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values: flat keys, the version of their form among them, and `ranks`."""
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
            "simd": self.simd,
            "memory_mb": self.memory_mb,
            "coordinators": [list(span) for span in self.coordinators],
            "predicted": self.predicted and self.predicted.to_json(),
            "error": self.error,
            "ranks": self.ranks,
        }

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Rebuild a report from `to_json`; FileFormatError names the field that is missing or wrong."""
        fields = Fields(value, "", "a run's report")
        # Those of older releases do not say.
        if (version := fields.take_or("version", _VERSION)) != _VERSION:
            raise FileFormatError(f"reports of version {version} are not known; this release reads {_VERSION}")
        return cls(
            channel=current_name(fields.take("channel", str)),
            workers=fields.take_count("workers", least=1),
            samples=fields.take_count("samples"),
            layers=fields.take_count("layers"),
            connections=fields.take_count("connections"),
            wall_s=fields.take_number("wall_s"),
            launch_s=fields.take_number("launch_s"),
            load_s=fields.take_number("load_s"),
            compute_s=fields.take_number("compute_s"),
            peak_rss_bytes=fields.take_count("peak_rss_bytes"),
            row_sends=fields.take_count("row_sends"),
            usage=_take_usage(fields, ""),
            attempts=fields.take_count("attempts"),
            simd=fields.take("simd", str),
            ranks=fields.take("ranks", list),
            # Reports of older releases do not have these.
            memory_mb=fields.take_count_if("memory_mb", least=1),
            replicas=fields.take_count_if("replicas", least=1) or 1,
            coordinators=_spans(fields.take_if("coordinators", list), fields.take_if("coordinator", list)),
            predicted=Prediction.from_json(said) if (said := fields.take_if("predicted", dict)) else None,
            error=fields.take_if("error", dict),
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read ``report.json``, or that in a directory.

        Raises
        ------
        FileFormatError
            There is none, or it is not a run's report.
        """
        file = Path(path)
        file = file / REPORT_FILE if file.is_dir() else file
        try:
            return cls.from_json(json.loads(file.read_bytes()))
        except OSError as error:
            raise FileFormatError(f"{file}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise FileFormatError(f"{file}: is not JSON") from error
        except FileFormatError as error:
            raise FileFormatError(f"{file}: is not a run's report: {error}") from error

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write ``report.json`` into a directory, which is made if need be, and return its path."""
        with filled_directory(directory) as folder:
            write_text(folder / REPORT_FILE, self.to_text())
        return Path(directory) / REPORT_FILE

    def to_text(self) -> str:
        """Return what ``report.json`` holds."""
        return json.dumps(self.to_json())  # json.dump encodes in Python, piece by piece


def _take_usage(fields: Fields, where: str) -> Usage:
    return Usage(
        Counter(_counts(fields.take("requests", dict), f"{where}requests")),
        Counter(_counts(fields.take("billed_units", dict), f"{where}billed_units")),
        *(fields.take_count(name) for name in _USAGE_TOTALS),
    )


def _spans(spans: list[Any] | None, only: list[Any] | None) -> list[tuple[float, float]]:
    """Return when coordinators began and ended; a report of an older release says it of one."""
    found = []
    for span in spans or ([] if only is None else [only]):
        values = span if isinstance(span, list) else []
        times = [time for time in values if isinstance(time, int | float) and math.isfinite(time)]
        if len(values) != 2 or len(times) != 2 or times[1] < times[0]:
            raise FileFormatError(f"'coordinators' must be pairs of times, not {span!r:.60}")
        found.append((times[0], times[1]))
    return found


def _counts(value: Mapping[str, Any], where: str) -> dict[str, int]:
    fields = Fields(value, f"{where}.")
    return {name: fields.take_count(name) for name in value}
