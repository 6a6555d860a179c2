"""Times of a batch on servers: one, or several that exchange rows by MPI."""

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
"""vCPUs and GiB of memory (Amazon EC2 instance types, 2026-11)."""


@dataclass(frozen=True, slots=True)
class ServerTimes:
    """A batch on a server, or on several that share it, all vCPUs at work on it.

    Attributes
    ----------
    boot_s, load_s, compute_s : float
        Until they run (job-scoped), until the network is in memory, and the batch itself, with what is exchanged.
    """

    instance: str
    boot_s: float
    load_s: float
    compute_s: float

    @property
    def job_s(self) -> float:
        """A server made for the batch: what is waited for, and billed."""
        return self.boot_s + self.load_s + self.compute_s

    @property
    def always_on_s(self) -> float:
        """A server that is there and has the network: what is waited for; all hours are billed."""
        return self.compute_s


def server_times(work: Work, payloads: Payloads, timing: Timing, instance: str) -> ServerTimes:
    """Predict a batch on a server: this machine's kernel rate for each vCPU, times the core factor.

    Raises
    ------
    SettingError
        The instance type is not known here.
    """
    if instance not in INSTANCES:
        raise SettingError(f"instance must be one of {', '.join(INSTANCES)}, not {instance!r}")
    cores, _ = INSTANCES[instance]
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
    """Predict a batch on P servers, a rank on each with all vCPUs at work, which exchange rows by MPI.

    Parameters
    ----------
    plan, work, payloads
        As for `predict_times`; rows are packed as over the services.
    timing : Timing
        A message takes ``mpi.latency_s``, its bytes ``mpi.bytes_per_s``.
    instance : str
        Of each server.
    weights : sequence of float, optional
        For how many layers each layer stands; 1 if not given.
    totals : ExchangeTotals, optional
        As for `predict_times`.

    Raises
    ------
    SettingError
        The instance type is not known here.
    """
    if instance not in INSTANCES:
        raise SettingError(f"instance must be one of {', '.join(INSTANCES)}, not {instance!r}")
    cores, _ = INSTANCES[instance]
    speed = Speed(timing, cores, cores)
    settings = RunSettings(workers=plan.workers, threads=cores)
    totals = totals or ExchangeTotals(plan, payloads)
    periods, _ = layer_times(totals, work, payloads, settings, "mpi", timing, speed, ChannelLimits())
    load = _server_load_s(float(work.shard_bytes.max()), timing, cores)
    whole = sum(weight * period for weight, period in zip(weights or (1.0,) * len(periods), periods, strict=True))
    return ServerTimes(instance, timing["boot.s"], load, whole)


def _server_load_s(size: float, timing: Timing, cores: int) -> float:
    # Over one connection a core, checked by all cores.
    read = size / min(timing["mpi.bytes_per_s"], cores * timing["connection.bytes_per_s"])
    return read + size / timing["cpu.load_bytes_per_s"] / cores
