"""What is simulated, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fsd_inference.config import RunSettings
from fsd_inference.engine.reporting import activity_report
from fsd_inference.errors import RunError, SettingError
from fsd_inference.forecast.frames import ChannelLimits, sent_between
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import BILLED_TICK_S, COORDINATOR_MB, MB_PER_VCPU
from fsd_inference.partitioning.plan import ExchangePlan, Partition
from fsd_inference.prediction import FunctionTime
from fsd_inference.rank_report import Interval, RankReport, SentTo
from fsd_inference.run_report import RunReport
from fsd_inference.usage import Usage

CHANNELS = ("local", "queue", "object", "mpi")


@dataclass(frozen=True, slots=True)
class Chances:
    """What may be otherwise from run to run.

    Attributes
    ----------
    seed : int
        Of all draws: equal seeds give equal runs.
    warm : int
        Function environments that are there already.
    stragglers : float
        Share of ranks whose processors are slow.
    slowdown : float
        How many times slower those are.
    """

    seed: int = 0
    warm: int = 0
    stragglers: float = 0.0
    slowdown: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.stragglers <= 1 or not 1 <= self.slowdown < math.inf or self.warm < 0:
            raise SettingError(
                "stragglers are a share of 0 to 1, slower by a factor of 1 or more, and no fewer than 0 environments "
                f"are warm: not {self.stragglers:g}, {self.slowdown:g} and {self.warm}"
            )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run to simulate.

    Attributes
    ----------
    partition, plan
        Who owns what, and what is exchanged.
    work : Work
        What the ranks have to do.
    payloads : Payloads
        What the plan's edges carry.
    settings : RunSettings
    channel : {"local", "queue", "object", "mpi"}
    timing : Timing
    memory_mb : int
        Of each rank's function.
    chances : Chances
    limits : ChannelLimits
    buckets : int
        That objects are spread over.
    lane_ranks : int or None
        Queues of a lane, which are all purged after the run; None: as many as workers.
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
    lane_ranks: int | None = None

    def __post_init__(self) -> None:
        workers = self.settings.workers
        if not workers == self.partition.workers == self.plan.workers == self.work.workers:
            raise SettingError(f"the settings are for {workers} workers, but the plan has {self.plan.workers}")
        if self.channel not in CHANNELS:
            raise SettingError(f"what is simulated is one of {', '.join(CHANNELS)}, not {self.channel!r}")
        self.payloads.check(self.plan)


@dataclass(frozen=True, slots=True)
class SimulatedRank:
    """One rank's part.

    Attributes
    ----------
    rank : int
    starter : int or None
    begun : float
        When its function or process was there, which is when it begins to be billed.
    started : float
        When its program ran, as reports have it.
    ended : float
    layers : int
        0 if its shard was never loaded.
    intervals : tuple of Interval
        What it did when, as `engine.timeline` has it.
    sent : tuple of (layer, frames, bytes)
    """

    rank: int
    starter: int | None
    begun: float
    started: float
    ended: float
    layers: int
    intervals: tuple[Interval, ...]
    sent: tuple[tuple[int, int, float], ...]

    def report(self, workers: int) -> RankReport:
        """Return what the rank would report; its requests are counted of the run, not of a layer."""
        return activity_report(
            rank=self.rank,
            starter=self.starter,
            started=self.started,
            ended=self.ended,
            workers=workers,
            layers=self.layers,
            intervals=self.intervals,
            sent=self.sent,
        )


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """What came of a simulated run.

    Attributes
    ----------
    scenario : Scenario
    wall_s : float
        From the caller's asking to the result in hand.
    launch_s : float
        From the launch of rank 0 to the start of the last rank.
    ranks : tuple of SimulatedRank
        Those that started.
    usage : Usage
        Requests and bytes of the whole run.
    error : RunError or None
        How it failed.
    """

    scenario: Scenario
    wall_s: float
    launch_s: float
    ranks: tuple[SimulatedRank, ...]
    usage: Usage
    error: RunError | None

    def function_times(
        self, *, architecture: str = "x86_64", coordinator_mb: int = COORDINATOR_MB
    ) -> tuple[FunctionTime, ...]:
        """Return the time of the workers' functions, and of the coordinator's, as Lambda bills it."""
        seconds = sum(math.ceil((rank.ended - rank.begun) / BILLED_TICK_S) * BILLED_TICK_S for rank in self.ranks)
        whole = FunctionTime(self.scenario.memory_mb, architecture, seconds, len(self.ranks))
        return whole, FunctionTime(coordinator_mb, architecture, self.wall_s, 1)

    def _sent_between(self) -> NDArray[np.float64]:
        """Return frames and bytes from each rank to each other."""
        it, workers = self.scenario, self.scenario.settings.workers
        frame_bytes = it.limits.queue_frame_bytes if it.channel == "queue" else it.limits.object_frame_bytes
        found = np.zeros((2, workers, workers))
        for edges, payloads in zip(it.plan.exchanges, it.payloads.exchanges, strict=True):
            if edges:
                found += sent_between(edges, payloads, frame_bytes, workers)
        for rank in self.ranks:
            if rank.starter is not None:  # it tells its parent that it is done
                _, frames, size = rank.sent[-1]
                found[:, rank.rank, rank.starter] += frames, size
        return found

    def report(self) -> RunReport:
        """Return the run as a report; its peak memory is not simulated, and 0."""
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
            attempts=1,
            simd="simulated",
            ranks=ranks,
        )


def _targets(frames: NDArray[np.float64], sizes: NDArray[np.float64]) -> tuple[SentTo, ...]:
    """Return what a rank sent to each other, ascending, from frames and bytes by target."""
    return tuple(SentTo(int(target), int(frames[target]), round(sizes[target])) for target in np.flatnonzero(frames))
