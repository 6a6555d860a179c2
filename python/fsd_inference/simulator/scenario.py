"""The input and the result of a simulation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fsd_inference.config import RunSettings
from fsd_inference.engine.reporting import activity_report
from fsd_inference.errors import RunError, SettingError
from fsd_inference.forecast.frames import ChannelLimits, sent_between
from fsd_inference.forecast.microvms import microvm_time, most_connections, quota_problem
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import BILLED_TICK_S, COORDINATOR_END_S, COORDINATOR_MB, MB_PER_VCPU, MICROVM_MB
from fsd_inference.partitioning.plan import ExchangePlan, Partition
from fsd_inference.prediction import FunctionTime, MicrovmTime
from fsd_inference.rank_report import Interval, RankReport, SentTo
from fsd_inference.run_report import EarlierFunctions, RunReport
from fsd_inference.usage import Usage

CHANNELS = ("local", "queue", "object", "direct", "mpi")


@dataclass(frozen=True, slots=True)
class Chances:
    """The random conditions of a simulated run: latencies, warm functions and stragglers.

    Attributes
    ----------
    seed : int
        Seed of all random draws: equal seeds give equal runs.
    warm : int
        Number of warm function environments when the run begins.
    stragglers : float
        Fraction of ranks, 0 to 1, whose processors are slow.
    slowdown : float
        Factor, at least 1, by which stragglers are slower.
    """

    seed: int = 0
    warm: int = 0
    stragglers: float = 0.0
    slowdown: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.stragglers <= 1 or not 1 <= self.slowdown < math.inf or self.warm < 0:
            raise SettingError(
                "stragglers must be a fraction of 0 to 1, slowdown at least 1 and warm at least 0, "
                f"not {self.stragglers:g}, {self.slowdown:g} and {self.warm}"
            )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run to simulate.

    Attributes
    ----------
    partition : Partition
        The rank that owns each neuron.
    plan : ExchangePlan
        The rows that ranks exchange.
    work : Work
        The connections and shard bytes of each rank.
    payloads : Payloads
        Sizes of what the plan's edges carry.
    settings : RunSettings
    channel : {"local", "queue", "object", "direct", "mpi"}
    timing : Timing
        Latencies, rates and processor times.
    memory_mb : int
        Memory in MB of each rank's function, or over `direct` baseline memory of its MicroVM.
    chances : Chances
        Seed, warm functions and stragglers.
    limits : ChannelLimits
    buckets : int
        Number of buckets over which `object` spreads its objects.
    purged : int
        Number of queues of the lane that are purged after the run (`count_lane`).
    timeout_s : float or None
        Time limit of the functions, at which a run with checkpoints is handed on; None for none.
    """

    partition: Partition
    plan: ExchangePlan
    work: Work
    payloads: Payloads
    settings: RunSettings
    channel: str
    timing: Timing
    memory_mb: int = MB_PER_VCPU
    chances: Chances = field(default_factory=Chances)
    limits: ChannelLimits = field(default_factory=ChannelLimits)
    buckets: int = 1
    purged: int = 0
    timeout_s: float | None = None

    @property
    def hands_on_s(self) -> float:
        """Seconds from the caller's request until an attempt has to hand on; infinity if it never has to."""
        if self.timeout_s is None or not self.settings.checkpoint_every:
            return math.inf
        begin_s = self.timing.latency("begin").mean_s
        begin_s += self.timing.latency("cold").mean_s if not self.chances.warm else 0.0
        return self.timing["client.before_s"] + begin_s + self.timeout_s - COORDINATOR_END_S

    def __post_init__(self) -> None:
        workers = self.settings.workers
        if not workers == self.partition.workers == self.plan.workers == self.work.workers:
            raise SettingError(f"the settings are for {workers} workers, but the plan has {self.plan.workers}")
        if self.channel not in CHANNELS:
            raise SettingError(f"a simulated channel must be one of {', '.join(CHANNELS)}, not {self.channel!r}")
        if self.channel == "direct":
            if self.memory_mb not in MICROVM_MB:
                sizes = ", ".join(map(str, MICROVM_MB))
                raise SettingError(f"a MicroVM has {sizes} MB of memory, not {self.memory_mb}: set one of these")
            if problem := quota_problem(workers, most_connections(self.plan), self.memory_mb):
                raise SettingError(problem)
        self.payloads.check(self.plan)


@dataclass(frozen=True, slots=True)
class SimulatedRank:
    """What one rank did in a simulated run; times are in virtual seconds.

    Attributes
    ----------
    rank : int
    starter : int or None
        Rank that started this one; None for rank 0.
    begun : float
        Time at which its function or process came up, from which Lambda bills it.
    started : float
        Time at which its program started, which is the start time in reports.
    ended : float
        Time at which it ended.
    layers : int
        Number of layers; 0 if its shard was never loaded.
    intervals : tuple of Interval
        Its activities in the form of `engine.timeline`, by start time.
    sent : tuple of (layer, frames, bytes)
        What it sent, in the order of sending.
    checkpoints : tuple of float
        Bytes of the checkpoints that it stored.
    """

    rank: int
    starter: int | None
    begun: float
    started: float
    ended: float
    layers: int
    intervals: tuple[Interval, ...]
    sent: tuple[tuple[int, int, float], ...]
    checkpoints: tuple[float, ...] = ()

    def report(self, workers: int) -> RankReport:
        """Return the rank's report in a run of `workers` ranks; requests are counted for the run, not by layer."""
        found = activity_report(
            rank=self.rank,
            starter=self.starter,
            started=self.started,
            ended=self.ended,
            workers=workers,
            layers=self.layers,
            intervals=self.intervals,
            sent=self.sent,
        )
        return replace(found, checkpoints=len(self.checkpoints), checkpoint_bytes=round(sum(self.checkpoints)))


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """The result of a simulated run.

    Attributes
    ----------
    scenario : Scenario
    wall_s : float
        Seconds from the caller's request to the result.
    launch_s : float
        Seconds from the launch of rank 0 to the start of the last rank.
    ranks : tuple of SimulatedRank
        The ranks that started.
    usage : Usage
        Requests and bytes of the whole run.
    error : RunError or None
        Why the run failed; None if it succeeded.
    starts : tuple of int
        The layer at which each attempt starts.
    next_layer : int
        The layer at which another attempt could start: the last one before which all ranks have checkpoints.
    earlier : tuple of SimulatedRank
        The ranks of the attempts before the last.
    """

    scenario: Scenario
    wall_s: float
    launch_s: float
    ranks: tuple[SimulatedRank, ...]
    usage: Usage
    error: RunError | None
    starts: tuple[int, ...] = (0,)
    next_layer: int = 0
    earlier: tuple[SimulatedRank, ...] = ()

    def function_times(
        self, *, architecture: str = "x86_64", coordinator_mb: int = COORDINATOR_MB
    ) -> tuple[FunctionTime, ...]:
        """Return the billed time of the workers' functions, unless they are MicroVMs, and of the coordinator's.

        Init phases are included.
        """
        seconds, invocations = _billed_s((*self.earlier, *self.ranks)), len(self.earlier) + len(self.ranks)
        init_s, warm = self.scenario.timing["init.s"], self.scenario.chances.warm
        # The coordinator takes a warm environment first. Those of later attempts are warm.
        seconds += init_s * max(0, len(self.ranks) - max(0, warm - 1))
        attempts = len(self.starts)
        coordinator = FunctionTime(coordinator_mb, architecture, self.wall_s + init_s * (warm == 0), attempts)
        if self.scenario.channel == "direct":
            return (coordinator,)
        return FunctionTime(self.scenario.memory_mb, architecture, seconds, invocations), coordinator

    def microvm_times(self) -> tuple[MicrovmTime, ...]:
        """Return the billed time of the workers' MicroVMs; empty over the other channels."""
        if self.scenario.channel != "direct":
            return ()
        computing = sum(rank.report(len(self.ranks)).compute_s for rank in self.ranks)
        seconds = [rank.ended - rank.begun for rank in self.ranks]
        return (microvm_time(self.scenario.memory_mb, seconds, computing),)

    def _sent_between(self) -> NDArray[np.float64]:
        """Return frames and bytes from each rank to each other: 2 x sources x targets."""
        it, workers = self.scenario, self.scenario.settings.workers
        frame_bytes = it.limits.queue_frame_bytes if it.channel == "queue" else it.limits.object_frame_bytes
        found = np.zeros((2, workers, workers))
        for edges, payloads in zip(it.plan.exchanges, it.payloads.exchanges, strict=True):
            if edges:
                found += sent_between(edges, payloads, frame_bytes, workers)
        for rank in self.ranks:
            if rank.starter is not None:  # the last thing a rank sends is its gather message, to its parent
                _, frames, size = rank.sent[-1]
                found[:, rank.rank, rank.starter] += frames, size
        return found

    def report(self) -> RunReport:
        """Return the run's report; peak memory is not simulated and reported as 0."""
        work, ranks = self.scenario.work, [rank.report(len(self.ranks)) for rank in self.ranks]
        plan = self.scenario.plan
        if self.error is None:
            sent = self._sent_between()
            ranks = [replace(rank, sent_to=_targets(*sent[:, rank.rank])) for rank in ranks]
        return RunReport(
            channel=self.scenario.channel,
            workers=len(self.ranks),
            samples=sum(self.scenario.payloads.samples),
            layers=work.layers,
            connections=int(work.connections.sum()),
            wall_s=self.wall_s,
            launch_s=self.launch_s,
            load_s=max(rank.load_s for rank in ranks),
            compute_s=max(rank.compute_s for rank in ranks),
            peak_rss_bytes=0,
            row_sends=sum(edge.rows.size * len(edge.targets) for exchange in plan.exchanges for edge in exchange),
            usage=self.usage,
            attempts=len(self.starts),
            resumed_at=self.starts[-1],
            # The coordinator is taken to last as long as the run.
            earlier=EarlierFunctions(len(self.earlier), _billed_s(self.earlier), len(self.starts) - 1),
            simd="simulated",
            ranks=ranks,
        )


def _billed_s(ranks: Sequence[SimulatedRank]) -> float:
    return sum(math.ceil((rank.ended - rank.begun) / BILLED_TICK_S) * BILLED_TICK_S for rank in ranks)


def _targets(frames: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[SentTo, ...]:
    """Return what a rank sent to each other rank, by ascending target; `frames` and `sizes` (bytes) are by target."""
    return tuple(SentTo(int(target), int(frames[target]), round(sizes[target])) for target in np.flatnonzero(frames))
