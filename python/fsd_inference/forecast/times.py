"""The time model: how long a run takes, layer by layer, from its plan; quicker than the simulator.

A layer's period is that of its slowest rank: the boundary rows, then the longer of the interior rows and the exchange.
That is packing, sending, delivery, receiving and unpacking; as a rank waits for the last of its sources, the
latencies taken are about the largest of as many draws. With micro-batches, one's exchange hides behind the others'
computing. Draws, retries and queues at the services are the simulator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fsd_inference.config import RunSettings
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import SettingError
from fsd_inference.forecast.exchange_times import HOPS, ExchangeTotals
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.launch import launch_s
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.speed import Speed, vcpus
from fsd_inference.forecast.timing import REQUESTS, Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import COORDINATOR_MB, MB_PER_VCPU
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.prediction import FunctionTime

CHANNELS = ("serial", "local", "queue", "object", "mpi")
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
        self, memory_mb: int, workers: int, *, architecture: str = "x86_64", coordinator_mb: int = COORDINATOR_MB
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
    cores: float | None = None,
    warm: int = 0,
    weights: Sequence[float] | None = None,
    limits: ChannelLimits | None = None,
    totals: ExchangeTotals | None = None,
) -> RunTimes:
    """Predict a run on functions, or on processes of one host.

    Parameters
    ----------
    plan, work, payloads
        What is exchanged, what the ranks have to do, and what the edges carry.
    settings : RunSettings
    channel : {"serial", "local", "queue", "object", "mpi"}
        "serial" takes a plan of one worker.
    timing : Timing
    memory_mb : int
        Of each function.
    cores : float, optional
        Of the host, where ranks are its processes: they share them evenly, and `memory_mb` does not count.
    warm : int
        Function environments that are there already.
    weights : sequence of float, optional
        For how many layers each layer stands; 1 if not given.
    limits : ChannelLimits, optional
    totals : ExchangeTotals, optional
        Of this plan and these payloads, for those who predict several runs of them.

    Raises
    ------
    SettingError
        Plan, work and settings are of different numbers of workers, or the channel is none.
    """
    workers = settings.workers
    if not workers == plan.workers == work.workers:
        raise SettingError(f"the settings are for {workers} workers, but the plan has {plan.workers}")
    if channel not in CHANNELS:
        raise SettingError(f"channel must be one of {', '.join(CHANNELS)}, not {channel!r}")
    speed = Speed(timing, vcpus(memory_mb) if cores is None else cores / workers, settings.threads)
    tree = Tree(workers, settings.branching)
    launch = _launch_s(tree, timing, warm)
    before = timing["client.before_s"]
    if cores is None:
        before += 2 * timing.latency("begin").mean_s  # the coordinator's and rank 0's
        before += 2 * timing.latency("cold").mean_s * (warm < workers)
    else:
        starting = timing["cpu.begin_s"] + timing["cpu.open_s"] + timing["cpu.open_queue_s"] * (channel == "queue")
        launch, before = max(launch, (workers - 1) * starting / cores), before + starting
    load = _load_s(work, payloads, timing, speed)
    totals = totals or ExchangeTotals(plan, payloads)
    periods, computing = layer_times(totals, work, payloads, settings, channel, timing, speed, limits)
    weights = weights or (1.0,) * len(periods)
    layers = tuple(weight * period for weight, period in zip(weights, periods, strict=True))
    # A result and a report; then each rank tells its parent.
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
    )


def _launch_s(tree: Tree, timing: Timing, warm: int) -> float:
    launches = sorted(launch_s(tree, timing, warm=max(0, warm - 1), seed=seed) for seed in range(_LAUNCHES))
    return launches[_LAUNCHES // 2]


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


def layer_times(
    totals: ExchangeTotals,
    work: Work,
    payloads: Payloads,
    settings: RunSettings,
    channel: str,
    timing: Timing,
    speed: Speed,
    limits: ChannelLimits | None = None,
) -> tuple[list[float], list[float]]:
    """Return the period of each layer in seconds, and the slowest rank's computing in it; see the module."""
    micro_batches = len(payloads.samples)
    of_rank = speed.compute_s(work, payloads).mean(axis=2) + timing["cpu.step_s"] / speed.one  # of a micro-batch
    computing = (of_rank * micro_batches).max(axis=1)
    periods = computing.copy()
    sending = np.flatnonzero(totals.frames.any(axis=1))  # layers after which anything is sent
    if sending.size:
        exchange, receiving, packing = (
            found[sending] for found in totals.exchange_s(channel, timing, speed, limits or ChannelLimits())
        )  # fmt: skip
        of_rank = of_rank[sending]
        whole = of_rank * micro_batches
        hidden = (micro_batches - 1) * of_rank
        if settings.overlap:
            hidden = hidden + of_rank * (1 - totals.boundary_share(work)[sending])
        # One thread receives, whatever the number of micro-batches.
        own = np.maximum(whole + packing * micro_batches, receiving * micro_batches)
        periods[sending] = np.maximum(own, whole - hidden + packing + exchange).max(axis=1)
    return periods.tolist(), computing.tolist()
