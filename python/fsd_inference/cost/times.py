"""The time model: how long a run takes, layer by layer, from its plan; quicker than the simulator.

A layer's period is that of its slowest rank: the boundary rows, then the longer of the interior rows and the exchange.
That is packing, sending, delivery, receiving and unpacking; as a rank waits for the last of its sources, the
latencies taken are about the largest of as many draws. With micro-batches, one's exchange hides behind the others'
computing. Draws, retries and queues at the services are the simulator's (`cost.simulator`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.config import RunSettings
from fsd_inference.cost.frames import ChannelLimits, Payloads
from fsd_inference.cost.simulator.launch import launch_s
from fsd_inference.cost.simulator.rank import READERS, SENDERS
from fsd_inference.cost.timing import REQUESTS, Latency, Timing
from fsd_inference.cost.work import Speed, Work
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.limits import BATCH_ENTRIES, MB_PER_VCPU
from fsd_inference.partition.plan import ExchangePlan
from fsd_inference.prediction import FunctionTime

Floats = NDArray[np.float64]
_LAUNCHES = 5  # whose median is taken


@dataclass(frozen=True, slots=True)
class RunTimes:
    """How long a run takes, and what of it.

    Attributes
    ----------
    wall_s : float
        From asking to the result in hand.
    launch_s, load_s, store_s : float
        Starting all ranks; loading shard and input, the slowest rank; storing results and ending.
    layers_s, compute_s : tuple of float
        Of each layer: its period, and the slowest rank's computing in it.
    functions_s : float
        Seconds of all ranks' functions.
    """

    wall_s: float
    launch_s: float
    load_s: float
    store_s: float
    layers_s: tuple[float, ...]
    compute_s: tuple[float, ...]
    functions_s: float

    @property
    def run_s(self) -> float:
        """From the start of rank 0 to its end."""
        return self.launch_s + self.load_s + sum(self.layers_s) + self.store_s

    def function_times(
        self, memory_mb: int, workers: int, *, architecture: str = "x86_64", coordinator_mb: int = 512
    ) -> tuple[FunctionTime, ...]:
        """Return the time of the workers' functions and of the coordinator's, to be priced."""
        return (
            FunctionTime(memory_mb, architecture, self.functions_s, workers),
            FunctionTime(coordinator_mb, architecture, self.wall_s, 1),
        )


def predict_times(
    plan: ExchangePlan,
    work: Work,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    timing: Timing,
    *,
    memory_mb: int = MB_PER_VCPU,
    warm: int = 0,
    limits: ChannelLimits | None = None,
    traffic: Traffic | None = None,
) -> RunTimes:
    """Predict a run on functions.

    Parameters
    ----------
    plan, work, payloads
        What is exchanged, what the ranks have to do, and what the edges carry.
    settings : RunSettings
    channel : {"serial", "memory", "queue", "object", "mpi"}
        "serial" takes a plan of one worker.
    timing : Timing
    memory_mb : int
        Of each function.
    warm : int
        Function environments that are there already.
    limits : ChannelLimits, optional
    traffic : Traffic, optional
        Of this plan and these payloads, for those who predict several runs of them.

    Raises
    ------
    SettingError
        Plan, work and settings are of different numbers of workers, or the channel is none.
    """
    if not settings.workers == plan.workers == work.workers:
        raise SettingError(f"the settings are for {settings.workers} workers, but the plan has {plan.workers}")
    if channel not in {"serial", "memory", "queue", "object", "mpi"}:
        raise SettingError(f"channel must be serial, memory, queue, object or mpi, not {channel!r}")
    speed = Speed(timing, memory_mb, settings.threads)
    tree = Tree(settings.workers, settings.branching)
    launches = sorted(launch_s(tree, timing, warm=max(0, warm - 1), seed=seed) for seed in range(_LAUNCHES))
    launch = launches[_LAUNCHES // 2]
    before = timing["client.before_s"] + 2 * timing.latency("begin").mean_s  # the coordinator's and rank 0's
    if warm < settings.workers:
        before += 2 * timing.latency("cold").mean_s
    load = _load_s(work, payloads, timing, speed)
    traffic = traffic or Traffic(plan, payloads)
    periods, computing = _layers(traffic, work, payloads, settings, channel, timing, speed, limits or ChannelLimits())
    # A result and a report; then each rank tells its parent.
    store = 2 * _request_s("put", timing, speed)
    if plan.workers > 1 and channel in {"queue", "object"}:
        store += (tree.depth - 1) * sum(_request_s(name, timing, speed) for name in _HOPS[channel])
    collected = settings.workers if settings.output == "rows" else 1
    after = timing["client.after_s"] + (timing["lane.s"] if channel == "queue" else 0.0)
    after += collected * (timing["cpu.get_s"] + timing.latency("get").mean_s)
    run = load + sum(periods) + store
    return RunTimes(
        before + launch + run + after,
        launch,
        load,
        store,
        tuple(periods),
        tuple(computing),
        settings.workers * (run + launch / 2),
    )


_HOPS = {"queue": ("publish", "deliver", "receive"), "object": ("put", "get")}


def _request_s(name: str, timing: Timing, speed: Speed) -> float:
    """Return what a request takes, on average and without its bytes; a delivery is none of the caller's."""
    work_s = timing[f"cpu.{name}_s"] / speed.one if name in REQUESTS else 0.0
    return timing.latency(name).mean_s + work_s


def _load_s(work: Work, payloads: Payloads, timing: Timing, speed: Speed) -> float:
    shard = float(work.shard_bytes.max())
    cpu = shard / timing["cpu.load_bytes_per_s"] + payloads.input_bytes / timing["cpu.unpack_bytes_per_s"]
    bandwidth = min(timing["connection.bytes_per_s"], timing["network.bytes_per_s"])
    reads = 3 * _request_s("get", timing, speed)
    claim = timing.latency("put").mean_s
    return claim + reads + (shard + payloads.input_bytes) / bandwidth + cpu / speed.one


def _layers(
    traffic: Traffic,
    work: Work,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    timing: Timing,
    speed: Speed,
    limits: ChannelLimits,
) -> tuple[list[float], list[float]]:
    micro_batches = len(payloads.samples)
    of_rank = speed.compute_s(work, payloads).mean(axis=2) + timing["cpu.step_s"] / speed.one  # of a micro-batch
    computing = (of_rank * micro_batches).max(axis=1)
    periods = computing.copy()
    sending = np.flatnonzero(traffic.frames.any(axis=1))  # layers after which anything is sent
    if sending.size:
        exchange, receiving, packing = (
            found[sending] for found in traffic.exchange_s(channel, timing, speed, limits)
        )  # fmt: skip
        of_rank = of_rank[sending]
        whole = of_rank * micro_batches
        hidden = (micro_batches - 1) * of_rank
        if settings.overlap:
            hidden = hidden + of_rank * (1 - traffic.boundary_share(work)[sending])
        # One thread receives, whatever the number of micro-batches.
        own = np.maximum(whole + packing * micro_batches, receiving * micro_batches)
        periods[sending] = np.maximum(own, whole - hidden + packing + exchange).max(axis=1)
    return periods.tolist(), computing.tolist()


class Traffic:
    """A plan's exchanges, summed over each rank's edges; bytes are those of a mean micro-batch.

    Parameters
    ----------
    plan : ExchangePlan
    payloads : Payloads
        Of this plan.

    Attributes
    ----------
    sent, got : ndarray of float64, exchanges x P
        Bytes.
    frames, sources : ndarray of float64, exchanges x P
        Edges by which a rank sends, and by which it receives.
    """

    def __init__(self, plan: ExchangePlan, payloads: Payloads) -> None:
        self._shape = len(plan.exchanges), plan.workers
        edges = [(layer * plan.workers, edge) for layer, exchange in enumerate(plan.exchanges) for edge in exchange]
        sizes = np.concatenate([np.zeros(0), *(of_layer.mean(axis=1) for of_layer in payloads.exchanges)])
        counts = np.array([len(edge.targets) for _, edge in edges], np.int64)
        source = np.array([start + edge.source for start, edge in edges], np.int64)
        target = np.fromiter((start + rank for start, edge in edges for rank in edge.targets), np.int64, counts.sum())
        self.sent, self.frames = self._sums(source, sizes), self._sums(source)
        self.got, self.sources = self._sums(target, np.repeat(sizes, counts)), self._sums(target)
        rows: Floats = np.zeros(math.prod(self._shape))
        np.maximum.at(rows, source, np.array([edge.rows.size for _, edge in edges], np.float64))
        self._rows = rows.reshape(self._shape)  # of the largest edge

    def _sums(self, places: NDArray[np.int64], values: Floats | None = None) -> Floats:
        return np.bincount(places, values, math.prod(self._shape)).astype(np.float64).reshape(self._shape)

    def boundary_share(self, work: Work) -> Floats:
        """Return about which share of a rank's rows others need: no less than its largest edge."""
        widths = np.array(work.inputs[1 : 1 + self._shape[0]], np.float64)
        owned = np.maximum(1.0, widths / work.workers)
        share: Floats = np.minimum(1.0, self._rows / owned[:, None])
        return share

    def exchange_s(
        self, channel: str, timing: Timing, speed: Speed, limits: ChannelLimits
    ) -> tuple[Floats, Floats, Floats]:
        """Return, of each rank, the seconds of travelling, of which receiving, and those of packing and unpacking."""
        one = speed.one
        packing: Floats = (
            self.sent / timing["cpu.pack_bytes_per_s"] + self.got / timing["cpu.unpack_bytes_per_s"]
        ) / one
        work_s = {name: timing[f"cpu.{name}_s"] / one for name in REQUESTS}
        message_s = timing["cpu.message_s"] / one
        byte_s = {name: 1 / timing[f"cpu.{name}_bytes_per_s"] / one for name in REQUESTS}
        network = timing["network.bytes_per_s"]
        largest = {name: self._largest_s(timing.latency(name)) for name in _HOPS.get(channel, ())}
        if channel == "queue":
            sent, got = self.sent * 4 / 3, self.got * 4 / 3
            batches = np.maximum(np.ceil(self.frames / BATCH_ENTRIES), np.ceil(sent / limits.message_bytes))
            turns = np.ceil(batches / SENDERS)
            sending = batches * work_s["publish"] + self.frames * message_s
            sending = sending + turns * largest["publish"] + sent * byte_s["publish"] + sent / network
            polls = np.ceil(self.sources / BATCH_ENTRIES)
            receiving = polls * (timing.latency("receive").mean_s + work_s["receive"]) + self.sources * message_s
            receiving = receiving + got * byte_s["receive"] + got / network
            return sending.max(axis=1, keepdims=True) + largest["deliver"] + receiving, receiving, packing
        if channel == "object":
            sending = work_s["put"] + largest["put"] + self.sent * byte_s["put"] + self.sent / network
            # The one expected last is polled at intervals of about an eighth of the wait; then the others are read.
            reads = 1 + np.ceil(np.maximum(0, self.sources - 1) / READERS)
            wait = sending.max(axis=1, keepdims=True)
            receiving = wait / 16 + reads * (timing.latency("get").largest_s(READERS) + work_s["get"])
            receiving = receiving + self.got * byte_s["get"] + self.got / network
            return wait + receiving, receiving, packing
        is_mpi = channel == "mpi"
        latency = timing["mpi.latency_s"] if is_mpi else 0.0
        bandwidth = timing["mpi.bytes_per_s" if is_mpi else "connection.bytes_per_s"]
        travelling = latency + (self.sent / bandwidth).max(axis=1, keepdims=True) + self.got / bandwidth
        return travelling, self.got / bandwidth, packing

    def _largest_s(self, latency: Latency) -> Floats:
        """Return what a rank waits for its slowest source, exchanges x 1: about the largest of as many draws."""
        draws = [max(1, round(mean)) for mean in self.sources.mean(axis=1).tolist()]
        found = {count: latency.largest_s(count) for count in set(draws)}
        return np.array([[found[count]] for count in draws])


# --- servers ---------------------------------------------------------------------------------------------------------

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
    speed = Speed(timing, threads=cores, server_vcpus=cores)
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
    traffic: Traffic | None = None,
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
    traffic : Traffic, optional
        As for `predict_times`.

    Raises
    ------
    SettingError
        The instance type is not known here.
    """
    if instance not in INSTANCES:
        raise SettingError(f"instance must be one of {', '.join(INSTANCES)}, not {instance!r}")
    cores, _ = INSTANCES[instance]
    speed = Speed(timing, threads=cores, server_vcpus=cores)
    settings = RunSettings(workers=plan.workers, threads=cores)
    traffic = traffic or Traffic(plan, payloads)
    periods, _ = _layers(traffic, work, payloads, settings, "mpi", timing, speed, ChannelLimits())
    load = _server_load_s(float(work.shard_bytes.max()), timing, cores)
    whole = sum(weight * period for weight, period in zip(weights or (1.0,) * len(periods), periods, strict=True))
    return ServerTimes(instance, timing["boot.s"], load, whole)


def _server_load_s(size: float, timing: Timing, cores: int) -> float:
    # Over one connection a core, checked by all cores.
    read = size / min(timing["mpi.bytes_per_s"], cores * timing["connection.bytes_per_s"])
    return read + size / timing["cpu.load_bytes_per_s"] / cores
