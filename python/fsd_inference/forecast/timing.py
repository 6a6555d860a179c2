"""Timing values: named latencies, rates and processor times with unit, source and date, read from a file and checked.

The package has two sets, ``aws`` and ``emulator`` (``data/timing/NAME.json``). A user's file names the set that it is
based on, and has the values that differ from it; `fsd calibrate` writes such files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import Fields, parse_json, read_text
from fsd_inference.limits import publish_quota as default_quota

SECONDS, BYTES_A_SECOND, COUNT, A_SECOND, RATE, FACTOR = "s", "bytes/s", "count", "1/s", "Gedge/s", "factor"
LATENCIES = {
    "publish": "an SNS PublishBatch, from request to response",
    "deliver": "from that response until the message can be received from SQS",
    "receive": "an SQS ReceiveMessage, from the availability of a message to the response",
    "put": "an S3 PUT",
    "get": "an S3 GET, hit or miss",
    "start": "the call that starts another rank",
    "begin": "from that call until a warm function's handler begins",
    "cold": "additional delay of a cold start, its init phase included",
    "launch": "from the call that launches a MicroVM until it serves requests",
    "frame": "a message over an open connection to the endpoint of another rank's MicroVM, one way",
}
"""Latencies of the services: each has the values ``NAME.median_s`` and ``NAME.p99_s``."""
REQUESTS = {
    "publish": "a PublishBatch",
    "receive": "a ReceiveMessage",
    "put": "a PUT",
    "get": "a GET, hit or miss",
}
"""Requests with values of the caller's processor time: ``cpu.NAME_s`` and ``cpu.NAME_bytes_per_s``."""
PUBLISH_QUOTA = "account.messages_per_s"
_OTHERS = {
    "connection.bytes_per_s": (BYTES_A_SECOND, "bandwidth of a single transfer to or from a service"),
    "network.bytes_per_s": (BYTES_A_SECOND, "bandwidth of all transfers of one function, in each direction"),
    "environments.burst": (COUNT, "burst of function environments that can be created at once"),
    "environments.per_s": (A_SECOND, "rate at which environments are created after the burst"),
    "microvms.burst": (COUNT, "burst of MicroVMs that can be launched at once"),
    "microvms.per_s": (A_SECOND, "rate at which MicroVMs are launched after the burst"),
    "endpoint.bytes_per_vcpu_s": (BYTES_A_SECOND, "bandwidth of a MicroVM's endpoint for each vCPU of its burst"),
    "endpoint.connect_s": (SECONDS, "getting tokens for the endpoints of other MicroVMs and connecting to them"),
    PUBLISH_QUOTA: (A_SECOND, "rate limit of the messages that an account publishes in a region, to all topics"),
    "prefix.puts_per_s": (A_SECOND, "rate limit of PUTs to a bucket, which has one partition until S3 has split it"),
    "prefix.gets_per_s": (A_SECOND, "rate limit of GETs from a bucket, which has one partition until S3 has split it"),
    "throttle.burst_s": (SECONDS, "burst that these rate limits admit, as seconds of their rate"),
    "init.s": (SECONDS, "duration of a cold start's init phase, which Lambda bills like the time of the handler"),
    "cpu.begin_s": (SECONDS, "processor time of a new process before its program runs: imports"),
    "cpu.open_s": (SECONDS, "processor time to open the clients, before a rank claims its place"),
    "cpu.open_queue_s": (SECONDS, "additional processor time to open the clients of SNS and SQS"),
    "cpu.step_s": (SECONDS, "processor time of the engine for a phase of a step, without the kernels"),
    "cpu.start_s": (SECONDS, "processor time of the caller: to start another rank"),
    **{f"cpu.{name}_s": (SECONDS, f"processor time of the caller: {said}") for name, said in REQUESTS.items()},
    **{
        f"cpu.{name}_bytes_per_s": (BYTES_A_SECOND, f"rate at which the caller processes the body of {said}")
        for name, said in REQUESTS.items()
    },
    "cpu.message_s": (SECONDS, "additional processor time for each message published or received"),
    "cpu.pack_bytes_per_s": (BYTES_A_SECOND, "rate of packing payloads"),
    "cpu.unpack_bytes_per_s": (BYTES_A_SECOND, "rate of unpacking payloads"),
    "cpu.load_bytes_per_s": (BYTES_A_SECOND, "rate of checking and decoding a shard"),
    "core.factor": (
        FACTOR,
        "speed of a whole vCPU of a function, relative to a core on which the kernels were measured",
    ),
    "client.before_s": (SECONDS, "from the caller's request until rank 0 is started"),
    "client.after_s": (SECONDS, "from rank 0's end until the caller has the result"),
    "lane.s": (SECONDS, "leasing a lane of queues before a run, and releasing it afterwards"),
    "mpi.latency_s": (SECONDS, "latency of a message between servers"),
    "mpi.bytes_per_s": (BYTES_A_SECOND, "bandwidth between servers"),
    "boot.s": (SECONDS, "from the request for a server until it runs"),
}
UNITS = {
    **{f"{name}.{which}_s": SECONDS for name in LATENCIES for which in ("median", "p99")},
    **{name: unit for name, (unit, _) in _OTHERS.items()},
}
"""The unit of each value except ``kernel.NEURONS.SAMPLES``, the kernel rate of a core for NEURONS inputs of a layer and
SAMPLES samples, in 10^9 connections x samples per second."""
SETS = ("aws", "emulator")
"""Names of the package's own sets."""
_FORMAT, _VERSION = "fsd-timing", 1
_Z99 = 2.3263478740408408  # standard deviations from the median to the 99th percentile
_FORMER = ("host.", "server.", "poll.", "topic.")
"""Prefixes of names from earlier releases; files that have them can still be read, and those values are ignored."""
_POSITIVE = {"core.factor", "environments.burst", "environments.per_s", "microvms.burst", "microvms.per_s"}


@dataclass(frozen=True, slots=True)
class Sourced:
    """A value with its source: where and when it was published or measured."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Latency:
    """A lognormal distribution of latencies, given by its median and 99th percentile in seconds."""

    median_s: float
    p99_s: float

    @property
    def sigma(self) -> float:
        """Standard deviation of the latency's natural logarithm."""
        return math.log(self.p99_s / self.median_s) / _Z99 if self.median_s > 0 else 0.0

    @property
    def mean_s(self) -> float:
        """Mean of the distribution in seconds."""
        return self.median_s * math.exp(self.sigma**2 / 2)

    def largest_s(self, draws: int) -> float:
        """Return about the largest of `draws` random latencies in seconds: the quantile at draws / (draws + 1)."""
        if draws < 1 or self.median_s <= 0:
            return 0.0
        from statistics import NormalDist  # noqa: PLC0415 - seldom needed

        return self.median_s * math.exp(self.sigma * NormalDist().inv_cdf(draws / (draws + 1)))


@dataclass(frozen=True, slots=True)
class Timing:
    """A complete set of timing values.

    Attributes
    ----------
    name : str
        Name of the set, or of the user's values.
    date : str
        Date of the set.
    values : mapping of str to Sourced
        Values by name: those of `UNITS`, and kernel rates.
    """

    name: str
    date: str
    values: Mapping[str, Sourced]

    def __getitem__(self, name: str) -> float:
        """Return the value named `name`, in the unit of `UNITS`."""
        return self.values[name].value

    def latency(self, name: str) -> Latency:
        """Return the distribution of one of `LATENCIES`."""
        return Latency(self[f"{name}.median_s"], self[f"{name}.p99_s"])

    def with_values(self, name: str, values: Mapping[str, Sourced]) -> Timing:
        """Return a copy of the set, named `name`, in which `values` replace others.

        Raises
        ------
        SettingError
            A value's name is unknown, a value is out of range, or a 99th percentile is below its median.
        """
        for each, sourced in values.items():
            _check(each, sourced.value)
        changed = replace(self, name=name, values={**self.values, **values})
        for each in LATENCIES:
            if changed[f"{each}.p99_s"] < changed[f"{each}.median_s"]:
                raise SettingError(f"'{each}.p99_s' must be at least '{each}.median_s'")
        return changed

    def kernel_rates(self) -> dict[tuple[int, int], float]:
        """Return the measured kernel rates of a core, in connections x samples per second, by (inputs, samples)."""
        rates = {}
        for name, sourced in self.values.items():
            if name.startswith("kernel."):
                _, neurons, samples = name.split(".")
                rates[int(neurons), int(samples)] = sourced.value * 1e9
        return rates

    def __str__(self) -> str:
        return f"timing of {self.name}, {self.date}"


def timing_json(name: str, date: str, base: str, values: Mapping[str, Sourced]) -> dict[str, Any]:
    """Return the content of a timing file as plain JSON values: `values` override the set `base`."""
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


def load_timing(
    name: str = "aws", *files: Path, region: str = "us-east-1", publish_quota: float | None = None
) -> Timing:
    """Load a set of timing values from the package, optionally overridden by timing files.

    Parameters
    ----------
    name : {"aws", "emulator"}
        Set of the package; ignored if files are given, which name their base set.
    *files : Path
        Timing files, such as `fsd calibrate` writes; later files override earlier ones.
    region : str
        AWS region whose publishing quota the set "aws" has.
    publish_quota : float, optional
        Messages a second that the account may publish, instead of the region's default and of the files' values.

    Raises
    ------
    SettingError
        There is no such set, or the files are based on different sets.
    FileFormatError
        A file cannot be read, is not a timing file, or has an invalid value.
    """
    parsed = [parse_timing(read_text(file), str(file)) for file in files]
    bases = sorted({base for base, _ in parsed})
    if len(bases) > 1:
        raise SettingError(f"the timing files are based on different sets ({', '.join(bases)}); pass files of one set")
    timing = _packaged(bases[0] if bases else name, region)
    for _, found in parsed:
        timing = timing.with_values(found.name, found.values)
    if publish_quota is not None:
        timing = timing.with_values(timing.name, {PUBLISH_QUOTA: Sourced(publish_quota, "set by the caller")})
    return timing


def parse_timing(text: str, what: str) -> tuple[str, Timing]:
    """Parse the text of a timing file and check it; return the name of its base set, and its own values.

    Parameters
    ----------
    text : str
        The file's content.
    what : str
        Name of the file in error messages.

    Raises
    ------
    FileFormatError
        The text is not a timing file, or a field is missing or wrong; the message names the field.
    """
    return parse_json(text, what, _parsed)


def unit_of(name: str) -> str:
    """Return the unit of the value named `name`; SettingError if the name is unknown."""
    if name in UNITS:
        return UNITS[name]
    parts = name.split(".")
    if parts[0] == "kernel" and len(parts) == 3 and all(part.isdigit() and int(part) > 0 for part in parts[1:]):
        return RATE
    raise SettingError(f"'{name}' is not a timing value; known are kernel.NEURONS.SAMPLES, {', '.join(UNITS)}")


def _check(name: str, value: float) -> None:
    unit = unit_of(name)
    # Rates are divisors, so they must not be 0.
    if unit in {BYTES_A_SECOND, RATE} or name in _POSITIVE or name.startswith(("account.", "prefix.")):
        if not 0 < value < math.inf:
            raise SettingError(f"'{name}' must be more than 0 {unit}, not {value:g}")
    elif not 0 <= value < math.inf:
        raise SettingError(f"'{name}' must be 0 {unit} or more, not {value:g}")


def _parsed(value: object) -> tuple[str, Timing]:
    top = Fields(value, "", "a timing file")
    if top.take("format", str) != _FORMAT:
        raise FileFormatError(f"'format' must be {_FORMAT!r}: this is not a timing file")
    if (version := top.take("version", int)) != _VERSION:
        raise FileFormatError(f"timing files of version {version} are not supported; this release reads {_VERSION}")
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
    if (given := fields.take("unit", str)) != unit:
        raise FileFormatError(f"'values.{name}.unit' must be {unit!r}, not {given!r}")
    fields.end()
    _check(name, found.value)
    return found


def _packaged(name: str, region: str) -> Timing:
    if name not in SETS:
        raise SettingError(f"timing must be {' or '.join(SETS)}, or a timing file, not {name!r}")
    text = (resources.files("fsd_inference.forecast") / "data" / "timing" / f"{name}.json").read_text(encoding="utf-8")
    _, timing = parse_timing(text, f"{name}.json")
    if name == "aws":
        quota = Sourced(
            default_quota(region), f"default quota of an account in {region}: Amazon SNS endpoints and quotas, 2026-11"
        )
        timing = timing.with_values(timing.name, {PUBLISH_QUOTA: quota})
    missing = UNITS.keys() - timing.values.keys()
    assert not missing, missing  # noqa: S101 - the package's own files are complete
    return timing
