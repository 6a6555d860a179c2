"""The discrete-event simulation of a run: the engine's real state machines with modelled durations and services.

`engine.worker.Worker` decides what a rank does and in which order, as in a real run; this module decides only how long
each action takes.
"""

from __future__ import annotations

import dataclasses
import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.engine.messages import (
    Abort,
    Action,
    Arrived,
    ArrivedEdges,
    CheckChild,
    ChildChecked,
    Compute,
    Computed,
    Event,
    Failed,
    Finish,
    Load,
    Loaded,
    Phase,
    Restore,
    ResultStored,
    Send,
    SendGather,
    Sent,
    StartChild,
    Started,
    Step,
    StoreResult,
    Ticked,
)
from fsd_inference.engine.pieces import PARALLEL_PIECES, PIECE_BYTES
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import Worker, abort_payload
from fsd_inference.errors import ChannelError, HandedOnError, RunError, as_run_error
from fsd_inference.forecast.counts import count_lane, count_microvms, count_own, count_sweeps
from fsd_inference.forecast.course import Attempt, Course
from fsd_inference.forecast.draws import Draws
from fsd_inference.forecast.frames import Outgoing, gather_step
from fsd_inference.forecast.speed import Speed, burst_vcpus, vcpus
from fsd_inference.limits import SUMMARY_BYTES
from fsd_inference.partitioning.plan import rank_plans
from fsd_inference.simulator.channels import DirectModel
from fsd_inference.simulator.checkpoints import Checkpoints
from fsd_inference.simulator.clock import Clock
from fsd_inference.simulator.direct_model import MicrovmModel
from fsd_inference.simulator.object_model import ObjectModel
from fsd_inference.simulator.queue_model import QueueModel
from fsd_inference.simulator.rank import Rank
from fsd_inference.simulator.resources import Bandwidth
from fsd_inference.simulator.scenario import Scenario, SimulatedRank, SimulatedRun
from fsd_inference.simulator.services import ChannelModel, Services
from fsd_inference.simulator.traffic import StepTraffic
from fsd_inference.token_bucket import TokenBucket

_CLAIM_READS = 2  # sequential GETs before shard and input: the manifest, and the index of the input's blocks


@contextmanager
def without_collector() -> Iterator[None]:
    """Disable Python's cyclic garbage collector: it would rescan millions of records, none of which is in a cycle."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Simulation:
    """The simulation of one attempt of a run: its ranks, its services and its virtual clock.

    Parameters
    ----------
    scenario : Scenario
    starts : sequence of int
        The layers at which the attempts up to this one start.
    """

    def __init__(self, scenario: Scenario, starts: Sequence[int] = (0,)) -> None:
        self.scenario = scenario
        self._starts = tuple(starts)
        timing, chances, settings = scenario.timing, scenario.chances, scenario.settings
        self.clock = Clock()
        self.draws = Draws(timing, chances.seed)
        self._is_direct = scenario.channel == "direct"
        of_rank = burst_vcpus(scenario.memory_mb) if self._is_direct else vcpus(scenario.memory_mb)
        self.speed = Speed(timing, of_rank, settings.threads)
        self.tree = Tree(settings.workers, settings.branching)
        self.plans = rank_plans(scenario.partition, scenario.plan)
        self.layers = len(self.plans[0].receives)
        self.ranks = [self.make_rank(number) for number in range(settings.workers)]
        self.services, self.channel = self.make_services()
        self._checkpoints = Checkpoints(scenario, starts[-1], self.services, self.speed.one)
        self.compute_s = self.speed.compute_s(scenario.work, scenario.payloads).tolist()
        self.traffic = StepTraffic(scenario.plan, scenario.payloads, scenario.limits, queue=scenario.channel == "queue")
        self._warm = chances.warm
        self._environments = TokenBucket(timing["environments.per_s"], timing["environments.burst"])
        self._microvms = TokenBucket(timing["microvms.per_s"], timing["microvms.burst"])
        self._running = 0  # ranks that have been asked to start and have not ended
        self._launched = 0.0
        self._error: RunError | None = None

    def make_rank(self, number: int) -> Rank:
        """Return a rank that has not started yet; draws whether it is a straggler."""
        scenario = self.scenario
        settings, timing, chances = scenario.settings, scenario.timing, scenario.chances
        is_slow = self.draws.uniform() < chances.stragglers
        worker = Worker(
            rank=number,
            tree=self.tree,
            micro_batches=len(scenario.payloads.samples),
            samples=sum(scenario.payloads.samples),
            overlap=settings.overlap,
            clocks=settings.clocks,
            deadline=min(settings.clocks.run_s, scenario.hands_on_s),
            hands_on=scenario.hands_on_s < settings.clocks.run_s,
            resume_at=self._starts[-1],
        )
        up, down = (Bandwidth(timing["network.bytes_per_s"]) for _ in range(2))
        speed = 1 / chances.slowdown if is_slow else 1.0
        return Rank(number, self.tree.parent(number), self.plans[number], worker, speed, up, down)

    def make_services(self) -> tuple[Services, ChannelModel]:
        """Return the simulated services and the scenario's channel."""
        services = Services(self.scenario, self.clock, self.draws, self.speed)
        models: dict[str, type[QueueModel | ObjectModel | MicrovmModel | DirectModel]] = {
            "queue": QueueModel, "object": ObjectModel, "direct": MicrovmModel,
        }  # fmt: skip
        return services, models.get(self.scenario.channel, DirectModel)(services, self.scenario, self.ranks, self)

    def run(self) -> SimulatedRun:
        """Simulate the run from the caller's request to the result."""
        timing, settings = self.scenario.timing, self.scenario.settings
        self._launched, first = self.launch()
        self._running = 1
        self.clock.at(first, self._begin, self.ranks[0])
        self.clock.run(lambda: not self._running)
        ranks = [rank for rank in self.ranks if rank.started < math.inf]
        for rank in ranks:
            rank.ended = min(rank.ended, self.clock.now)
        collected = settings.workers if settings.output == "rows" else 1
        if isinstance(self._error, HandedOnError):
            collected = 0
        reading_s = collected * (timing["cpu.get_s"] + timing.latency("get").mean_s)
        after_s = timing["client.after_s"] + (timing["lane.s"] if self.scenario.channel == "queue" else 0.0)
        started = max((rank.started for rank in ranks), default=self._launched)
        usage = self.services.usage
        if not isinstance(self._error, HandedOnError):  # otherwise the run's last attempt counts its objects
            course = Course(self.layers, 0, tuple(Attempt(first, self.layers) for first in self._starts))
            usage += count_own(
                self.scenario.payloads, settings, self.scenario.limits, self.scenario.work.shard_bytes,
                stays_warm=True, course=course,
            )  # fmt: skip
        if self.scenario.channel == "queue":
            is_left = isinstance(self._error, HandedOnError)  # what other ranks have not received any more
            usage += count_lane(settings.workers if is_left else self.scenario.purged)
        elif self.scenario.channel == "object":
            usage += count_sweeps(self.scenario.buckets, self.services.usage.requests["s3.put"])
        elif self._is_direct:
            usage += count_microvms(settings.workers)
        return SimulatedRun(
            self.scenario,
            self.caller_done(reading_s + after_s),
            started - self._launched,
            tuple(self._ended_rank(rank) for rank in ranks),
            usage,
            self._error,
            self._starts,
            min(rank.resume_at for rank in self.ranks),
        )

    def launch(self) -> tuple[float, float]:
        """Return two times: when the coordinator, itself a function, launches rank 0, and when rank 0 begins."""
        launched = self.scenario.timing["client.before_s"]
        launched += self._begin_s(launched)
        return launched, launched + self._rank_begins_s(launched)

    def caller_done(self, work_s: float) -> float:
        """Return the time at which the caller has the result, after `work_s` seconds of reading it."""
        return self.clock.now + work_s

    @staticmethod
    def _ended_rank(rank: Rank) -> SimulatedRank:
        layers = rank.plan.layers if rank.is_loaded else 0
        intervals = tuple(sorted(rank.intervals, key=lambda interval: interval.start))
        return SimulatedRank(
            rank.number, rank.starter, rank.begun, rank.started, rank.ended, layers, intervals, tuple(rank.sent),
            tuple(rank.checkpoints),
        )  # fmt: skip

    # --- starting ----------------------------------------------------------------------------------------------------

    def _begin_s(self, now: float) -> float:
        """Return the seconds until an invoked function begins; a cold start takes longer and has a rate limit."""
        if self._warm > 0:
            self._warm -= 1
            return self.draws.latency("begin")
        return self._environments.wait_s(now) + self.draws.latency("begin") + self.draws.latency("cold")

    def _rank_begins_s(self, now: float) -> float:
        """Return the seconds until a rank that is started begins: a function, or a MicroVM, which is never warm."""
        if not self._is_direct:
            return self._begin_s(now)
        return self._microvms.wait_s(now) + self.draws.latency("launch")

    def _begin(self, rank: Rank) -> None:
        rank.begun = self.clock.now
        self.services.work(self._work_s(rank, "cpu.begin_s"), self._open, rank)

    def _open(self, rank: Rank) -> None:
        rank.started = self.clock.now
        self.services.usage.requests["lambda.invoke"] += not self._is_direct
        work = self._work_s(rank, "cpu.open_s")
        if self.scenario.channel == "queue":
            work += self._work_s(rank, "cpu.open_queue_s")
        elif self._is_direct and self.scenario.settings.workers > 1:
            work += self.scenario.timing["endpoint.connect_s"]
        self.services.work(work, self._claim, rank)

    def _claim(self, rank: Rank) -> None:
        self.services.request(rank, "put", 0.0, 0.0, self._run, rank)

    def _run(self, rank: Rank) -> None:
        rank.is_claimed = True
        self.tell(rank, Started())
        self._tick(rank)

    def _tick(self, rank: Rank) -> None:
        """Schedule the rank's next check of its timeouts: at the earliest time at which one can expire."""
        if not rank.worker.finished:
            clocks, now = self.scenario.settings.clocks, self.clock.now
            due = min(rank.worker.next_clock(), now + clocks.stall_s, now + clocks.start_s)
            self.clock.at(max(due, now + 1e-3), self.ticked, rank)

    def ticked(self, rank: Rank) -> None:
        """Let the rank's state machine check its timeouts."""
        self.tell(rank, Ticked())
        self._tick(rank)

    def _work_s(self, rank: Rank, name: str) -> float:
        return self.scenario.timing[name] / self.speed.one / rank.speed

    # --- the state machine -------------------------------------------------------------------------------------------

    def tell(self, rank: Rank, event: Event) -> None:
        """Pass an event to a rank's state machine and carry out the actions that it returns."""
        for action in rank.worker.handle(event, self.clock.now):
            self._do(rank, action)
        if not rank.worker.finished:
            self.channel.listen(rank)

    def _do(self, rank: Rank, action: Action) -> None:
        match action:
            case Compute() | Restore():
                self._compute(rank, action.step, action.phase if isinstance(action, Compute) else Phase.ALL)
            case Send(step=step):
                self.send(rank, step, self.clock.now)
            case StartChild(rank=child):
                self._running += 1
                rank.starters.begin(
                    self.services.request, rank, "start", 0.0, 0.0, self._child_started, rank, self.ranks[child]
                )
            case Load():
                rank.starters.begin(self._load, rank, self.clock.now, _CLAIM_READS)
            case StoreResult():
                self._store(rank)
            case SendGather(target=target, summary=_):
                self.send_gather(rank, target)
            case CheckChild(rank=child):
                self.services.request(rank, "get", 0.0, 0.0, self._checked, rank, child)
            case Abort(error=error):
                self._abort(rank, error)
            case Finish(error=error):
                self._error = self._error or error
                self._finish(rank)

    def _finish(self, rank: Rank) -> None:
        """Have a rank write its report, once its last checkpoint is stored."""
        if rank.storing_until > self.clock.now:
            self.clock.at(rank.storing_until, self._finish, rank)
        else:
            self.services.request(rank, "put", 0.0, 0.0, self._ended, rank)

    def _ended(self, rank: Rank) -> None:
        rank.ended = self.clock.now
        self._running -= 1

    def _child_started(self, rank: Rank, child: Rank) -> None:
        rank.starters.end()
        now = self.clock.now
        self.clock.at(now + self._rank_begins_s(now), self._begin, child)

    def _checked(self, rank: Rank, child: int) -> None:
        self.tell(rank, ChildChecked(child, self.ranks[child].is_claimed))

    def _abort(self, rank: Rank, error: RunError) -> None:
        abort = Arrived(Kind.ABORT, 0, 0, rank.number, 0, complete=True, payload=abort_payload(error))
        for other in self.ranks:
            if other is not rank:
                latency_s = self.draws.latency("publish") + self.draws.latency("receive")
                self.clock.at(self.clock.now + latency_s, self._abort_arrived, other, abort)

    def _abort_arrived(self, rank: Rank, abort: Arrived) -> None:
        if rank.is_claimed:
            self.tell(rank, abort)
        else:  # the rank will find the abort when it starts, and end
            self._running -= 1

    # --- loading, computing, storing ---------------------------------------------------------------------------------

    def _load(self, rank: Rank, since: float, reads: int) -> None:
        """Make the small sequential reads that are left, then read the first piece of the shard, and the input."""
        if reads:
            self.services.request(rank, "get", 0.0, 0.0, self._load, rank, since, reads - 1)
            return
        size = self._first_bytes(rank) + self._start_bytes(rank)
        self.services.request(rank, "get", 0.0, size, self._decode_first, rank, since)

    def _first_bytes(self, rank: Rank) -> float:
        """Return the size of a shard's first piece, but at least that of its first layer."""
        size = float(self.scenario.work.shard_bytes[rank.number])
        return min(size, max(PIECE_BYTES, size / self.layers))

    def _start_bytes(self, rank: Rank) -> float:
        """Return the bytes that an attempt starts with: those of the input, or of the rank's checkpoint."""
        resume_at = self._starts[-1]
        return self._checkpoints.size(rank, resume_at - 1) if resume_at else self.scenario.payloads.input_bytes

    def _decode_first(self, rank: Rank, since: float) -> None:
        timing, first = self.scenario.timing, self._first_bytes(rank)
        work = first / timing["cpu.load_bytes_per_s"]
        work += self._start_bytes(rank) / timing["cpu.unpack_bytes_per_s"]
        self.services.work(work / self.speed.one / rank.speed, self._first_decoded, rank, since)

    def _first_decoded(self, rank: Rank, since: float) -> None:
        now = self.clock.now
        rank.note("load", -1, 0, since, now)
        rank.idle_since, rank.is_loaded = now, True
        size, first = float(self.scenario.work.shard_bytes[rank.number]), self._first_bytes(rank)
        rest = size - first
        self.loaded(rank, self.layers if not rest else max(1, int(self.layers * first / size)))
        if not rest:
            rank.starters.end()
            return
        # The other pieces, of which several are fetched at the same time, while the rank computes.
        timing = self.scenario.timing
        transfer_s = rest / min(timing["network.bytes_per_s"], PARALLEL_PIECES * timing["connection.bytes_per_s"])
        work_s = rest / timing["cpu.load_bytes_per_s"] / self.speed.one / rank.speed
        self.services.work(max(transfer_s, work_s), self._rest_loaded, rank)

    def _rest_loaded(self, rank: Rank) -> None:
        rank.starters.end()
        self.tell(rank, Loaded(rank.plan))

    def loaded(self, rank: Rank, layers: int | None = None) -> None:
        """Let a rank that has loaded its first layers, or all, start to compute and to receive."""
        self.tell(rank, Loaded(rank.plan, layers))
        for child in rank.early:
            self.told(rank, child)

    def _compute(self, rank: Rank, step: Step, phase: Phase) -> None:
        layer, micro_batch = step
        boundary, interior = rank.plan.boundary[layer], rank.plan.interior[layer]
        is_restored = layer < self._starts[-1]
        whole = 0.0 if is_restored else self.compute_s[layer][rank.number][micro_batch] / rank.speed
        share = boundary / max(1, boundary + interior)
        seconds = {Phase.BOUNDARY: share, Phase.INTERIOR: 1 - share, Phase.ALL: 1.0}[phase] * whole
        timing, one = self.scenario.timing, self.speed.one * rank.speed
        unpack = pack = 0.0
        if phase is not Phase.INTERIOR:
            rank.note("wait", layer, micro_batch, rank.idle_since, self.clock.now)
            received = 0.0 if is_restored else self.traffic.received_bytes(step, rank.number)
            unpack = received / timing["cpu.unpack_bytes_per_s"] / one
            sent = self.traffic.of(step).sent.get(rank.number)
            pack = sent.wire_bytes / timing["cpu.pack_bytes_per_s"] / one if sent else 0.0
        seconds += timing["cpu.step_s"] / one
        pack += self._checkpoints.keep_s(rank, step, phase, self.clock.now + unpack + seconds + pack)
        self.services.work(
            unpack + seconds + pack, self._computed, rank, step, phase, self.clock.now, (unpack, seconds, pack)
        )

    def _computed(self, rank: Rank, step: Step, phase: Phase, since: float, parts: tuple[float, float, float]) -> None:
        now = self.clock.now
        # Where ranks share cores, each part takes longer by the same factor.
        stretch = (now - since) / max(sum(parts), 1e-12)
        start = since
        for name, part in zip(("unpack", phase.value, "pack"), parts, strict=True):
            if part > 0:
                rank.note(name, *step, start, start + part * stretch)
                start += part * stretch
        rank.idle_since = now
        self.tell(rank, Computed(step, phase))

    def _store(self, rank: Rank) -> None:
        since, size = self.clock.now, 0.0
        if self.scenario.settings.output == "rows":
            rows = rank.plan.boundary[-1] + rank.plan.interior[-1]
            shares = self.scenario.payloads.density
            size = 4.0 * rows * sum(self.scenario.payloads.samples) * (shares[-1] if shares else 1.0)
            self.services.request(rank, "put", size, 0.0, self._stored, rank, since)
        else:
            self.services.work(0.0, self._stored, rank, since)

    def _stored(self, rank: Rank, since: float) -> None:
        rank.note("store", rank.plan.layers, 0, since, self.clock.now)
        self.tell(rank, ResultStored(b""))

    # --- messages ----------------------------------------------------------------------------------------------------

    def send(self, rank: Rank, step: Step, since: float) -> None:
        """Send the rows of a step, which were packed at time `since`."""
        outgoing = self.traffic.of(step)
        key = Expected(Kind.DATA, step.layer, step.micro_batch, rank.number)
        self._count_sent(rank, step.layer, outgoing)
        self.channel.send(rank, outgoing, key, self._send_done, rank, step, since)
        self.traffic.one_has_sent(step)

    def _count_sent(self, rank: Rank, layer: int, outgoing: Outgoing) -> None:
        usage, sent = self.services.usage, outgoing.sent[rank.number]
        usage.frames += sent.frames
        usage.wire_bytes += round(sent.wire_bytes)
        usage.body_bytes += round(sent.body_bytes)
        rank.sent.append((layer, sent.frames, sent.wire_bytes))

    def _send_done(self, rank: Rank, step: Step, since: float) -> None:
        rank.note("send", *step, since, self.clock.now)
        self.tell(rank, Sent(step))

    def send_gather(self, rank: Rank, target: int) -> None:
        """Send the parent the gather message: the subtree is done, with its summary if one was asked for."""
        samples = sum(self.scenario.payloads.samples)
        size = 0 if self.scenario.settings.output == "rows" else SUMMARY_BYTES * samples
        outgoing = gather_step(rank.number, target, size, self.scenario.limits, queue=self.scenario.channel == "queue")
        key = Expected(Kind.GATHER, self.layers, 0, rank.number)
        self._count_sent(rank, self.layers, outgoing)
        self.channel.send(rank, outgoing, key, self.tell, rank, Sent())

    def came_all(self, rank: Rank, step: Step) -> None:
        """See `Listener`."""
        layer = step.layer - 1
        rank.note("receive", layer, step.micro_batch, self.clock.now, self.clock.now)
        self.tell(rank, ArrivedEdges(layer, step.micro_batch, rank.plan.receives[step.layer]))

    def told(self, rank: Rank, child: int) -> None:
        """See `Listener`."""
        if not rank.is_loaded:  # a rank receives only once its shard is loaded
            rank.early.append(child)
            return
        rank.note("receive", self.layers, 0, self.clock.now, self.clock.now)
        self.tell(rank, Arrived(Kind.GATHER, self.layers, 0, child, 0, complete=True))

    def failed(self, rank: Rank, error: ChannelError) -> None:
        """Fail the rank, as the engine's driver does when a request fails."""
        self.tell(rank, Failed(as_run_error(error, rank=rank.number, operation="send", layer=None)))


def with_seed(scenario: Scenario, seed: int) -> Scenario:
    """Return a copy of the scenario with another seed."""
    return dataclasses.replace(scenario, chances=dataclasses.replace(scenario.chances, seed=seed))
