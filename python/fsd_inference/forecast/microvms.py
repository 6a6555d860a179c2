"""Lambda MicroVMs as ranks: their billed time, and the quotas that rule them out. docs/microvms.md has the sources."""

from __future__ import annotations

import math
from collections.abc import Iterable

from fsd_inference.forecast.speed import burst_vcpus
from fsd_inference.limits import MICROVM_ACCOUNT_MB, MICROVM_BURST, MICROVM_CONNECTIONS, MICROVM_MB, MICROVM_S
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.prediction import MicrovmTime
from fsd_inference.units import seconds_text

SNAPSHOT_GB = 0.6
"""Assumed size in GB of the worker image's snapshot: one with NumPy and pandas has 0.61 GB (Vivek0712/awesome-microvm
on GitHub, read 2026-11)."""


def microvm_time(memory_mb: int, seconds: Iterable[float], compute_s: float) -> MicrovmTime:
    """Return the billed time of MicroVMs.

    Parameters
    ----------
    memory_mb : int
        Baseline memory of each in MB.
    seconds : iterable of float
        Seconds from the start of each to its end; billed in whole seconds.
    compute_s : float
        Seconds for which kernels use all vCPUs of the burst, summed over the MicroVMs.
    """
    billed = [math.ceil(one) for one in seconds]
    beyond = burst_vcpus(memory_mb) * (1 - 1 / MICROVM_BURST)
    return MicrovmTime(memory_mb, float(sum(billed)), beyond * compute_s, len(billed), SNAPSHOT_GB)


def most_connections(plan: ExchangePlan) -> int:
    """Return the most connections to one rank: one from each rank that sends it rows."""
    pairs = {(edge.source, target) for exchange in plan.exchanges for edge in exchange for target in edge.targets}
    found = [0] * plan.workers
    for _, target in pairs:
        found[target] += 1
    return max(found)


def microvm_sizes(need_mb: float, connections: int) -> list[int]:
    """Return the sizes in MB to try: those that hold a rank and its connections, or else the largest."""
    held = [size for size in MICROVM_MB if size >= need_mb and _connections_of(size) >= connections]
    return held or [MICROVM_MB[-1]]


def _connections_of(memory_mb: int) -> int:
    return math.floor(MICROVM_CONNECTIONS * burst_vcpus(memory_mb))


def quota_problem(workers: int, connections: int, memory_mb: int) -> str | None:
    """Return why a run of MicroVMs exceeds a quota of connections or memory; None if it does not."""
    most = _connections_of(memory_mb)
    if connections > most:
        return f"{connections:,} ranks send to one, and a MicroVM of {memory_mb:,} MB holds {most:,} connections"
    if workers * memory_mb > MICROVM_ACCOUNT_MB:
        whole, quota = workers * memory_mb / 1024, MICROVM_ACCOUNT_MB / 1024
        return f"the MicroVMs have {whole:,.0f} GB, and an account {quota:,.0f} GB by default"
    return None


def microvm_limit(
    workers: int, connections: int, memory_mb: int, need_mb: float, longest_s: float
) -> tuple[str, str] | None:
    """Return the limit that a run of MicroVMs exceeds (see `options.LIMITS`) and how; None if it exceeds none.

    Parameters
    ----------
    workers, connections : int
        Number of MicroVMs, and the most connections to one.
    memory_mb : int
        Baseline memory of each in MB.
    need_mb : float
        Memory in MB that the largest rank needs.
    longest_s : float
        Seconds for which a MicroVM runs.
    """
    if need_mb > memory_mb:
        return "memory", f"memory does not fit: it needs {need_mb:,.0f} MB, the largest MicroVM has {memory_mb:,}"
    if exceeded := quota_problem(workers, connections, memory_mb):
        return "quota", exceeded
    if longest_s > MICROVM_S:
        return "invocation", f"a MicroVM would run for {seconds_text(longest_s)}, and may run for {MICROVM_S:,.0f} s"
    return None
