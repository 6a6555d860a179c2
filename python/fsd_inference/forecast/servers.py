"""Predicted times of a batch on an EC2 server, or on a cluster of servers that exchange rows by MPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fsd_inference.config import RunSettings
from fsd_inference.errors import SettingError
from fsd_inference.forecast.exchange_times import ExchangeTotals
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.times import layer_times
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.partitioning.plan import ExchangePlan

INSTANCES = {
    "c5.2xlarge": (8, 16),
    "c5.4xlarge": (16, 32),
    "c5.9xlarge": (36, 72),
    "c5.12xlarge": (48, 96),
    "c5.18xlarge": (72, 144),
    "c5.24xlarge": (96, 192),
}
"""vCPUs and GiB of memory by instance type (Amazon EC2 instance types, 2026-11)."""


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """The times of a batch on a server, or on a cluster that shares the batch, using all vCPUs.

    Attributes
    ----------
    instance : str
        EC2 instance type.
    boot_s, load_s, compute_s : float
        Seconds to start the servers, to load the network into memory, and to compute the batch, exchanges included.
    """

    instance: str
    boot_s: float
    load_s: float
    compute_s: float

    @property
    def job_s(self) -> float:
        """Seconds to answer on servers started for the batch; all of them are billed."""
        return self.boot_s + self.load_s + self.compute_s

    @property
    def always_on_s(self) -> float:
        """Seconds to answer on servers that are always on and have the network loaded; all hours are billed."""
        return max(self.compute_s, 1e-9)  # not 0, also of a network without connections: times are divided by it


def server_times(work: Work, payloads: Payloads, timing: Timing, instance: str) -> ServerTimes:
    """Predict the times of a batch on one server, whose vCPUs have the measured kernel rate times the core factor.

    Raises
    ------
    SettingError
        The instance type is not one of `INSTANCES`.
    """
    cores = _cores(instance)
    whole = Work(work.connections.sum(axis=1, keepdims=True), work.inputs, work.shard_bytes.sum(keepdims=True))
    speed = Speed(timing, cores, cores)
    return ServerTimes(
        instance,
        timing["boot.s"],
        _server_load_s(float(work.shard_bytes.sum()), timing, cores),
        float(speed.compute_s(whole, payloads).sum()),
    )


def cluster_times(
    plan: ExchangePlan,
    work: Work,
    payloads: Payloads,
    timing: Timing,
    instance: str,
    *,
    weights: Sequence[float] | None = None,
    totals: ExchangeTotals | None = None,
) -> ServerTimes:
    """Predict the times of a batch on P servers that exchange rows by MPI, with one rank a server using all vCPUs.

    Parameters
    ----------
    plan, work, payloads
        As for `predict_times`; rows are packed as over the services.
    timing : Timing
        ``mpi.latency_s`` is the latency of a message, ``mpi.bytes_per_s`` the bandwidth.
    instance : str
        EC2 instance type of each server.
    weights : sequence of float, optional
        Number of layers that each layer represents; default: 1 each.
    totals : ExchangeTotals, optional
        As for `predict_times`.

    Raises
    ------
    SettingError
        The instance type is not one of `INSTANCES`.
    """
    cores = _cores(instance)
    speed = Speed(timing, cores, cores)
    settings = RunSettings(workers=plan.workers, threads=cores)
    totals = totals or ExchangeTotals(plan, payloads)
    periods, _ = layer_times(totals, work, payloads, settings, "mpi", timing, speed, ChannelLimits())
    load = _server_load_s(float(work.shard_bytes.max()), timing, cores)
    whole = sum(weight * period for weight, period in zip(weights or (1.0,) * len(periods), periods, strict=True))
    return ServerTimes(instance, timing["boot.s"], load, whole)


def _cores(instance: str) -> int:
    if instance not in INSTANCES:
        raise SettingError(f"instance must be one of {', '.join(INSTANCES)}, not {instance!r}")
    return INSTANCES[instance][0]


def _server_load_s(size: float, timing: Timing, cores: int) -> float:
    # The shard is read over one connection a core, then checked and decoded by all cores.
    read = size / min(timing["mpi.bytes_per_s"], cores * timing["connection.bytes_per_s"])
    return read + size / timing["cpu.load_bytes_per_s"] / cores
