"""How long things take: named values with unit, source and date, read from a file and checked.

The package has two sets, ``aws`` and ``emulator`` (``data/timing/NAME.json``). A user's file names the set that it is
based on, and has the values that differ: `fsd calibrate` writes such files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError, SettingError
from fsd_inference.fields import Fields

SECONDS, BYTES_A_SECOND, COUNT, A_SECOND, RATE, FACTOR = "s", "bytes/s", "count", "1/s", "Gedge/s", "factor"
LATENCIES = {
    "publish": "an SNS PublishBatch, from asking until it is answered",
    "deliver": "from that answer until the message can be received",
    "receive": "an SQS ReceiveMessage, from a message's being there until the answer",
    "put": "an S3 PUT",
    "get": "an S3 GET, found or not",
    "start": "the call that starts another rank",
    "begin": "from that call until a warm function's handler begins",
    "cold": "how much later it begins where the environment must be made",
}
"""Latencies: each has ``NAME.median_s`` and ``NAME.p99_s``."""
REQUESTS = {
    "publish": "a PublishBatch",
    "receive": "a ReceiveMessage",
    "put": "a PUT",
    "get": "a GET, found or not",
}
"""Requests: ``cpu.NAME_s`` and ``cpu.NAME_bytes_per_s`` are the caller's processor time."""
_OTHERS = {
    "connection.bytes_per_s": (BYTES_A_SECOND, "a single transfer to or from a service"),
    "network.bytes_per_s": (BYTES_A_SECOND, "all transfers of one function, each way"),
    "environments.burst": (COUNT, "function environments that can be made at once"),
    "environments.per_s": (A_SECOND, "and a second after those"),
    "topic.messages_per_s": (A_SECOND, "messages that a topic takes"),
    "prefix.puts_per_s": (A_SECOND, "PUTs that a prefix of a bucket takes"),
    "prefix.gets_per_s": (A_SECOND, "GETs that a prefix of a bucket takes"),
    "throttle.burst_s": (SECONDS, "how much of these rates may come at once"),
    "cpu.begin_s": (SECONDS, "processor time of a new process before its program runs: imports"),
    "cpu.open_s": (SECONDS, "processor time before a rank claims its place: clients"),
    "cpu.open_queue_s": (SECONDS, "and for the clients of SNS and SQS"),
    "cpu.step_s": (SECONDS, "processor time of the engine for a phase of a step, beside the kernels"),
    "cpu.start_s": (SECONDS, "processor time of the caller: to start another rank"),
    **{f"cpu.{name}_s": (SECONDS, f"processor time of the caller: {said}") for name, said in REQUESTS.items()},
    **{
        f"cpu.{name}_bytes_per_s": (BYTES_A_SECOND, f"bodies of {said}, worked on by the caller")
        for name, said in REQUESTS.items()
    },
    "cpu.message_s": (SECONDS, "and for a message published or received"),
    "cpu.pack_bytes_per_s": (BYTES_A_SECOND, "payloads packed"),
    "cpu.unpack_bytes_per_s": (BYTES_A_SECOND, "payloads unpacked"),
    "cpu.load_bytes_per_s": (BYTES_A_SECOND, "a shard checked and taken in"),
    "core.factor": (
        FACTOR,
        "speed of a whole vCPU of a function, as a share of a core where the kernels were measured",
    ),
    "client.before_s": (SECONDS, "from the caller's asking until rank 0 is started"),
    "client.after_s": (SECONDS, "from rank 0's end until the caller has the result"),
    "lane.s": (SECONDS, "leasing a lane of queues before a run, and purging and giving it back after"),
    "mpi.latency_s": (SECONDS, "a message between servers"),
    "mpi.bytes_per_s": (BYTES_A_SECOND, "between servers"),
    "boot.s": (SECONDS, "from asking for a server until it runs"),
}
UNITS = {
    **{f"{name}.{which}_s": SECONDS for name in LATENCIES for which in ("median", "p99")},
    **{name: unit for name, (unit, _) in _OTHERS.items()},
}
"""All values but ``kernel.NEURONS.SAMPLES``, the rate of a core on a layer of so many inputs and a batch of so many."""
MEANINGS = {name: said for name, (_, said) in _OTHERS.items()}
SETS = ("aws", "emulator")
_FORMAT, _VERSION = "fsd-timing", 1
_Z99 = 2.3263478740408408  # standard deviations from the median to the 99th percentile
_FORMER = ("host.", "server.", "poll.")
"""First parts of names that earlier releases had; files with them are still read, without those values."""
_POSITIVE = {"core.factor", "environments.burst", "environments.per_s"}


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value, and where and when it is from."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Latency:
    """A lognormal distribution, by its median and 99th percentile in seconds."""

    median_s: float
    p99_s: float

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.log(self.p99_s / self.median_s) / _Z99 if self.median_s > 0 else 0.0

    @property
    def mean_s(self) -> float:
        """The mean."""
        return self.median_s * math.exp(self.sigma**2 / 2)

    def largest_s(self, draws: int) -> float:
        """Return about the largest of so many draws: where the chance to be below is draws / (draws + 1)."""
        if draws < 1 or self.median_s <= 0:
            return 0.0
        from statistics import NormalDist  # noqa: PLC0415 - rarely needed

        return self.median_s * math.exp(self.sigma * NormalDist().inv_cdf(draws / (draws + 1)))


@dataclass(frozen=True, slots=True)
class Timing:
    """A set of values.

    Attributes
    ----------
    name : str
        Of the set, or of the file.
    date : str
        When it was put together.
    values : mapping of str to Sourced
        See `UNITS`, and the kernel's rates.
    """

    name: str
    date: str
    values: Mapping[str, Sourced]

    def __getitem__(self, name: str) -> float:
        """Return a value."""
        return self.values[name].value

    def latency(self, name: str) -> Latency:
        """Return one of `LATENCIES`."""
        return Latency(self[f"{name}.median_s"], self[f"{name}.p99_s"])

    def with_values(self, name: str, values: Mapping[str, Sourced]) -> Timing:
        """Return the set with other values.

        Raises
        ------
        SettingError
            One of them is unknown, or makes no sense.
        """
        for each, sourced in values.items():
            _check(each, sourced.value)
        changed = replace(self, name=name, values={**self.values, **values})
        for each in LATENCIES:
            if changed[f"{each}.p99_s"] < changed[f"{each}.median_s"]:
                raise SettingError(f"'{each}.p99_s' must be at least '{each}.median_s'")
        return changed

    def kernel_rates(self) -> dict[tuple[int, int], float]:
        """Return the kernel's measured rates of a core, in connections x samples a second, by (inputs, samples)."""
        rates = {}
        for name, sourced in self.values.items():
            if name.startswith("kernel."):
                _, neurons, samples = name.split(".")
                rates[int(neurons), int(samples)] = sourced.value * 1e9
        return rates

    def __str__(self) -> str:
        return f"timing of {self.name}, {self.date}"


def timing_json(name: str, date: str, base: str, values: Mapping[str, Sourced]) -> dict[str, Any]:
    """Return a file of values as plain JSON: those that differ from the set `base`."""
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "name": name,
        "date": date,
        "base": base,
        "values": {
            each: {"value": sourced.value, "unit": unit_of(each), "source": sourced.source}
            for each, sourced in values.items()
        },
    }


def load_timing(name: str = "aws", *files: Path) -> Timing:
    """Return a set of the package, or that on which files are based, with their values; the last file's count.

    Parameters
    ----------
    name : {"aws", "emulator"}
        Not looked at where there are files.
    *files : Path
        As `fsd calibrate` writes them.

    Raises
    ------
    SettingError
        There is no such set, or the files are based on different ones.
    FileFormatError
        A file is not one of timing, or one of its values makes no sense.
    """
    parsed = []
    for file in files:
        try:
            parsed.append(parse_timing(file.read_text(encoding="utf-8"), str(file)))
        except OSError as error:
            raise FileFormatError(f"{file}: cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise FileFormatError(f"{file}: is not JSON") from error
    bases = sorted({base for base, _ in parsed})
    if len(bases) > 1:
        raise SettingError(f"the files of timing are based on different sets ({', '.join(bases)}); give those of one")
    timing = _packaged(bases[0] if bases else name)
    for _, found in parsed:
        timing = timing.with_values(found.name, found.values)
    return timing


def parse_timing(text: str, what: str) -> tuple[str, Timing]:
    """Read a file of timing and check it; return the set that it is based on, and its own values.

    Raises
    ------
    FileFormatError
        `what` names the file, and the message the field.
    """
    try:
        return _parsed(json.loads(text))
    except (json.JSONDecodeError, RecursionError) as error:
        raise FileFormatError(f"{what}: is not JSON") from error
    except InputError as error:
        raise FileFormatError(f"{what}: {error}") from error


def unit_of(name: str) -> str:
    """Return the unit of a value; SettingError if there is none of that name."""
    if name in UNITS:
        return UNITS[name]
    parts = name.split(".")
    if parts[0] == "kernel" and len(parts) == 3 and all(part.isdigit() and int(part) > 0 for part in parts[1:]):
        return RATE
    raise SettingError(f"'{name}' is not a value of timing; known are kernel.NEURONS.SAMPLES, {', '.join(UNITS)}")


def _check(name: str, value: float) -> None:
    unit = unit_of(name)
    # Rates are divided by.
    if unit in {BYTES_A_SECOND, RATE} or name in _POSITIVE or name.startswith(("topic.", "prefix.")):
        if not 0 < value < math.inf:
            raise SettingError(f"'{name}' must be more than 0 {unit}, not {value:g}")
    elif not 0 <= value < math.inf:
        raise SettingError(f"'{name}' must be 0 {unit} or more, not {value:g}")


def _parsed(value: object) -> tuple[str, Timing]:
    top = Fields(value, "", "a file of timing")
    if top.take("format", str) != _FORMAT:
        raise FileFormatError(f"'format' must be {_FORMAT!r}: this is not a file of timing")
    if (version := top.take("version", int)) != _VERSION:
        raise FileFormatError(f"timing of version {version} is not known; this release reads {_VERSION}")
    name, date, base = top.take("name", str), top.take("date", str), top.take("base", str)
    entries = top.take("values", dict).items()
    values = {each: _sourced(each, entry) for each, entry in entries if not each.startswith(_FORMER)}
    top.end()
    if base not in SETS:
        raise FileFormatError(f"'base' must be {' or '.join(SETS)}, not {base!r}")
    return base, Timing(name, date, values)


def _sourced(name: str, value: object) -> Sourced:
    unit = unit_of(name)
    fields = Fields(value, f"values.{name}.")
    found = Sourced(fields.take_number("value", unit), fields.take("source", str))
    if (said := fields.take("unit", str)) != unit:
        raise FileFormatError(f"'values.{name}.unit' must be {unit!r}, not {said!r}")
    fields.end()
    _check(name, found.value)
    return found


def _packaged(name: str) -> Timing:
    if name not in SETS:
        raise SettingError(f"timing must be that of {' or '.join(SETS)}, or a file, not {name!r}")
    text = (resources.files("fsd_inference.forecast") / "data" / "timing" / f"{name}.json").read_text(encoding="utf-8")
    _, timing = parse_timing(text, f"{name}.json")
    missing = UNITS.keys() - timing.values.keys()
    assert not missing, missing  # noqa: S101 - the package's own
    return timing
