"""The time model: a closed-form prediction of a run's time, layer by layer, that is faster than the simulator.

A layer's period is that of its slowest rank: the time for the boundary rows, then the longer of that for the interior
rows and that of the exchange. The exchange is packing, sending, delivery, receiving and unpacking. A rank waits for its
slowest source, so the latency used is about the largest of as many random draws as it has sources. With micro-batches,
the exchange of one overlaps with the computation of the others. Over `queue`, a layer takes at least as long as its
messages take at a rank's share of the account's publishing quota; over `object`, as long as S3's rate limits take to
admit its requests. Random latencies and retries are modelled by the simulator only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsd_inference.config import RunSettings
from fsd_inference.engine.pieces import PARALLEL_PIECES, PIECE_BYTES
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.exchange_times import HOPS, ExchangeTotals
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.launch import launch_s
from fsd_inference.forecast.microvms import microvm_time
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.publishing import longest_publishing_s, paced_s
from fsd_inference.forecast.speed import Speed, burst_vcpus, vcpus
from fsd_inference.forecast.timing import PUBLISH_QUOTA, REQUESTS, Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import COORDINATOR_MB, MB_PER_VCPU
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.prediction import FunctionTime, MicrovmTime

CHANNELS = ("serial", "local", "queue", "object", "direct", "mpi")
_LAUNCHES = 5  # simulated launches, whose median is used


@dataclass(frozen=True, slots=True)
class RunTimes:
    """The predicted duration of a run and of its phases, in seconds.

    Attributes
    ----------
    wall_s : float
        From the caller's request to the result.
    launch_s, load_s, store_s : float
        Starting all ranks; loading input and shard on the slowest rank, without what is read while it computes;
        storing results and ending.
    layers_s, compute_s : tuple of float
        For each layer, its period, and the slowest rank's kernel time in it.
    functions_s : float
        Sum over the functions of all ranks, from start to end of their handlers.
    cold_workers : int
        Number of ranks whose environment starts cold; if any does, the coordinator's does too.
    init_s : float
        Duration of the init phase of each environment that starts cold.
    paced_s : float
        Part of `layers_s` that the ranks wait for the account's publishing quota.
    longest_publishing_s : float
        Longest time that a rank takes to publish the messages of one step at its share of that quota.
    attempts : int
        Number of attempts, each with invocations of its own: more than one if the run is handed on.
    again_s : float
        Part of `wall_s` that storing checkpoints and handing on take: starting again, and computing what was lost.
    """

    wall_s: float
    launch_s: float
    load_s: float
    store_s: float
    layers_s: tuple[float, ...]
    compute_s: tuple[float, ...]
    functions_s: float
    cold_workers: int
    init_s: float
    paced_s: float = 0.0
    longest_publishing_s: float = 0.0
    attempts: int = 1
    again_s: float = 0.0

    @property
    def run_s(self) -> float:
        """Seconds from the start of rank 0 to its end, without checkpoints and hand-ons."""
        return self.launch_s + self.load_s + sum(self.layers_s) + self.store_s

    def function_times(
        self, memory_mb: int, workers: int, *, architecture: str = "x86_64", coordinator_mb: int = COORDINATOR_MB
    ) -> tuple[FunctionTime, ...]:
        """Return the billed Lambda time of the workers' functions and of the coordinator, init phases included."""
        worker_init_s, coordinator_init_s = self.cold_workers * self.init_s, (self.cold_workers > 0) * self.init_s
        return (
            FunctionTime(memory_mb, architecture, self.functions_s + worker_init_s, self.attempts * workers),
            FunctionTime(coordinator_mb, architecture, self.wall_s + coordinator_init_s, self.attempts),
        )

    def microvm_time(self, memory_mb: int, workers: int) -> MicrovmTime:
        """Return the billed time of MicroVMs of `memory_mb` MB that ran all ranks; each computes with its burst."""
        return microvm_time(memory_mb, [self.functions_s / workers] * workers, workers * sum(self.compute_s))


def predict_times(
    plan: ExchangePlan,
    work: Work,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    timing: Timing,
    *,
    memory_mb: int = MB_PER_VCPU,
    vcpus_each: float | None = None,
    cores: float | None = None,
    warm: int = 0,
    weights: Sequence[float] | None = None,
    limits: ChannelLimits | None = None,
    buckets: int = 1,
    totals: ExchangeTotals | None = None,
) -> RunTimes:
    """Predict the times of a run on functions, or on processes of one host.

    Parameters
    ----------
    plan : ExchangePlan
        The rows that ranks exchange.
    work : Work
        The connections and shard bytes of each rank.
    payloads : Payloads
        Sizes of what the plan's edges carry.
    settings : RunSettings
    channel : {"serial", "local", "queue", "object", "direct", "mpi"}
        "serial" needs a plan for one worker; with "direct", ranks are MicroVMs, launched for the run.
    timing : Timing
    memory_mb : int
        Memory in MB of each function, or baseline memory of each MicroVM.
    vcpus_each : float, optional
        vCPUs of each function; default: those that Lambda gives it, or the MicroVM, for its memory.
    cores : float, optional
        Cores of the host, for ranks that are its processes and share them evenly; `memory_mb` is then ignored.
    warm : int
        Number of warm function environments.
    weights : sequence of float, optional
        Number of layers that each layer represents; default: 1 each.
    limits : ChannelLimits, optional
    buckets : int
        Number of buckets over which `object` spreads its objects.
    totals : ExchangeTotals, optional
        Totals of this plan and these payloads; pass them to reuse them for several predictions.

    Raises
    ------
    SettingError
        Plan, work and settings are for different numbers of workers, or the channel is unknown.
    """
    workers = settings.workers
    if not workers == plan.workers == work.workers:
        raise SettingError(f"the settings are for {workers} workers, but the plan has {plan.workers}")
    if channel not in CHANNELS:
        raise SettingError(f"channel must be one of {', '.join(CHANNELS)}, not {channel!r}")
    is_direct = channel == "direct"
    if vcpus_each is None:
        vcpus_each = burst_vcpus(memory_mb) if is_direct else vcpus(memory_mb)
    speed = Speed(timing, vcpus_each if cores is None else cores / workers, settings.threads)
    tree = Tree(workers, settings.branching)
    launch = _launch_s(tree, timing, warm, is_direct)
    cold_workers = max(0, workers - warm) if cores is None else 0
    before = timing["client.before_s"]
    if cores is None:
        begin = timing.latency("begin").mean_s + timing.latency("cold").mean_s * (cold_workers > 0)
        before += begin + (
            timing.latency("launch").mean_s if is_direct else begin
        )  # for the coordinator and for rank 0
    else:
        starting = timing["cpu.begin_s"] + timing["cpu.open_s"] + timing["cpu.open_queue_s"] * (channel == "queue")
        launch, before = max(launch, (workers - 1) * starting / cores), before + starting
    totals = totals or ExchangeTotals(plan, payloads)
    periods, computing = layer_times(totals, work, payloads, settings, channel, timing, speed, limits, buckets)
    weights = weights or (1.0,) * len(periods)
    layers = free = tuple(weight * period for weight, period in zip(weights, periods, strict=True))
    longest_publishing = 0.0
    if channel == "queue":
        messages, quota = totals.messages(limits or ChannelLimits()), timing[PUBLISH_QUOTA]
        weighted = messages * settings.micro_batches * np.array(weights[:-1])[:, None]
        layers, longest_publishing = paced_s(free, weighted, quota), longest_publishing_s(messages, quota)
    load = _load_s(work, payloads, timing, speed, hidden_s=sum(layers))
    if is_direct and workers > 1:
        load += timing["endpoint.connect_s"]
    # Each rank writes a result and a report; the gather messages then climb the tree.
    store = 2 * _request_s("put", timing, speed)
    if workers > 1:
        store += (tree.depth - 1) * sum(_request_s(name, timing, speed) for name in HOPS.get(channel, ()))
    collected = workers if settings.output == "rows" else 1
    after = timing["client.after_s"] + (timing["lane.s"] if channel == "queue" else 0.0)
    after += collected * (timing["cpu.get_s"] + timing.latency("get").mean_s)
    run = load + sum(layers) + store
    return RunTimes(
        wall_s=before + launch + run + after,
        launch_s=launch,
        load_s=load,
        store_s=store,
        layers_s=layers,
        compute_s=tuple(weight * seconds for weight, seconds in zip(weights, computing, strict=True)),
        functions_s=workers * (run + launch / 2),
        cold_workers=cold_workers,
        init_s=timing["init.s"],
        paced_s=sum(layers) - sum(free),
        longest_publishing_s=longest_publishing,
    )


def _launch_s(tree: Tree, timing: Timing, warm: int, microvms: bool) -> float:
    warm = max(0, warm - 1)
    launches = sorted(launch_s(tree, timing, warm=warm, seed=seed, microvms=microvms) for seed in range(_LAUNCHES))
    return launches[_LAUNCHES // 2]


def _request_s(name: str, timing: Timing, speed: Speed) -> float:
    """Return the mean seconds of a request without its bytes; a delivery costs the caller no processor time."""
    work_s = timing[f"cpu.{name}_s"] / speed.one if name in REQUESTS else 0.0
    return timing.latency(name).mean_s + work_s


def _load_s(work: Work, payloads: Payloads, timing: Timing, speed: Speed, *, hidden_s: float) -> float:
    """Return the seconds of loading, of which the transfer after the first piece is hidden by `hidden_s` of computing.

    Checking and decoding take the processor, and so count in full.
    """
    shard = float(work.shard_bytes.max())
    first = min(shard, max(PIECE_BYTES, shard / work.layers))
    cpu = shard / timing["cpu.load_bytes_per_s"] + payloads.input_bytes / timing["cpu.unpack_bytes_per_s"]
    connection, network = timing["connection.bytes_per_s"], timing["network.bytes_per_s"]
    rest_s = (shard - first) / min(PARALLEL_PIECES * connection, network)
    reads = 3 * _request_s("get", timing, speed)
    claim = timing.latency("put").mean_s
    before = claim + reads + (first + payloads.input_bytes) / min(connection, network)
    return before + cpu / speed.one + max(0.0, rest_s - cpu / speed.one - hidden_s)


def layer_times(
    totals: ExchangeTotals,
    work: Work,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    timing: Timing,
    speed: Speed,
    limits: ChannelLimits | None = None,
    buckets: int = 1,
) -> tuple[list[float], list[float]]:
    """Return each layer's period and the slowest rank's kernel time in it, in seconds; see the module docstring."""
    micro_batches = len(payloads.samples)
    of_rank = speed.compute_s(work, payloads).mean(axis=2) + timing["cpu.step_s"] / speed.one  # mean micro-batch
    computing = (of_rank * micro_batches).max(axis=1)
    periods = computing.copy()
    sending = np.flatnonzero(totals.frames.any(axis=1))  # layers after which any rank sends
    if sending.size:
        exchange, receiving, packing = (
            found[sending] for found in totals.exchange_s(channel, timing, speed, limits or ChannelLimits())
        )  # fmt: skip
        of_rank = of_rank[sending]
        whole = of_rank * micro_batches
        hidden = (micro_batches - 1) * of_rank
        if settings.overlap:
            hidden = hidden + of_rank * (1 - totals.boundary_share(work)[sending])
        # A rank has one receive thread, whatever the number of micro-batches.
        own = np.maximum(whole + packing * micro_batches, receiving * micro_batches)
        slowest = np.maximum(own, whole - hidden + packing + exchange).max(axis=1)
        rationed = micro_batches * totals.rationed_s(channel, timing, buckets)[sending]
        periods[sending] = np.maximum(slowest, rationed)
    return periods.tolist(), computing.tolist()
