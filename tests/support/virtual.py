"""A harness that runs worker state machines under virtual time, with real kernels and a simulated faulty network."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsd_inference.channels.base import Frame, Kind
from fsd_inference.config import Clocks
from fsd_inference.engine.gather import encode
from fsd_inference.engine.messages import (
    Abort,
    Action,
    Arrived,
    AskAgain,
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
    SendAgain,
    SendGather,
    Sent,
    StartChild,
    Started,
    Step,
    StoreResult,
    Ticked,
)
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.numeric import overflow
from fsd_inference.engine.repeating import KeptFrames, repeat_payload
from fsd_inference.engine.results import concatenate
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import Worker, abort_payload
from fsd_inference.kernels import NonFiniteError, RankState, Shard, seal
from fsd_inference.partitioning import RankShard

RUN = bytes(range(16))
PLAN = bytes(range(16, 32))


@dataclass(frozen=True)
class Faults:
    """Faults of the simulated network: fractions of frames, stray bodies to inject, and a rank that never starts.

    `stray` is the fraction of frames that are followed by a stray body, and `lost_answers` that of data frames
    that are lost the first time, on a channel that asks for them again. `stops` is a rank that does nothing from a
    time on, or from when all ranks have started, if that is later. `lags` is a rank, and the seconds that each phase
    takes it beyond what others need.
    """

    duplicates: float = 0.0
    corrupted: float = 0.0
    strays: tuple[bytes, ...] = ()
    silent: int | None = None
    lost: float = 0.0
    stray: float = 0.2
    lost_answers: float = 0.0
    stops: tuple[int, float] | None = None
    lags: tuple[int, float] = (-1, 0.0)


@dataclass(frozen=True)
class Spill:
    """Bytes of early frames that a rank keeps in memory, and where the ranks have folders for the others."""

    bytes: int
    folder: Path

    def of(self, rank: int) -> Path:
        return self.folder / str(rank)


CLOCKS = Clocks(start_s=30, stall_s=60, run_s=900)
NO_FAULTS = Faults()


@dataclass
class Rank:
    worker: Worker
    state: RankState | None = None
    mailbox: list[bytes] = field(default_factory=list)
    packed: dict[Step, list[Frame]] = field(default_factory=dict)
    kept: KeptFrames = field(default_factory=KeptFrames)
    outputs: list[bytes] = field(default_factory=list)
    digests: list[tuple[int, int]] = field(default_factory=list)  # (layer, digest) of each micro-batch
    early: defaultdict[Step, int] = field(default_factory=lambda: defaultdict(int))  # bytes kept in memory, by step
    most_early: int = 0
    most_spilled: int = 0
    farthest: int = 0  # number of steps of a micro-batch that have frames which wait, at most
    rows: dict[Step, bytes] = field(default_factory=dict)  # of all steps, if they are kept
    finish: Finish | None = None
    finished_at: float = 0.0
    starter: int | None = None
    stopped: bool = False

    @property
    def over(self) -> bool:
        return self.stopped or self.finish is not None


@dataclass(frozen=True)
class Inputs:
    """The number of samples, and the blocks of the batch: (micro-batch, first feature, payload)."""

    samples: int
    blocks: Sequence[tuple[int, int, bytes]]


class VirtualRun:
    """A simulation of the P ranks of one attempt; `run` executes it and returns the ranks.

    With `keeps_rows` the ranks keep their rows of all steps. With those of an `earlier` attempt another one can start
    at the layer `resume_at`.
    """

    def __init__(
        self,
        shards: Sequence[tuple[RankShard, Shard]],
        inputs: Inputs,
        *,
        branching: int,
        micro_batches: int,
        overlap: bool,
        output: str,
        seed: int,
        run: bytes = RUN,
        attempt: int = 0,
        limit: int = 1 << 20,
        clocks: Clocks = CLOCKS,
        faults: Faults = NO_FAULTS,
        spill: Spill | None = None,
        wire: str = "float32",
        keeps_rows: bool = False,
        resume_at: int = 0,
        earlier: Sequence[Rank] = (),
    ) -> None:
        self.tree = Tree(len(shards), branching)
        self.sizes = micro_batch_sizes(inputs.samples, micro_batches)
        self.shards, self.inputs, self.faults, self.spill = shards, inputs, faults, spill
        self.output, self.id, self.attempt, self.limit = output, run, attempt, limit
        self.wire, self.keeps_rows, self.resume_at, self.earlier = wire, keeps_rows, resume_at, earlier
        self.random = random.Random(seed)
        self.order = itertools.count()
        self.heap: list[tuple[float, int, int, Event | bytes]] = []
        self.log: list[tuple[float, int, Action]] = []
        self.sent: list[bytes] = []
        self.ranks = [
            Rank(
                Worker(
                    rank=rank,
                    tree=self.tree,
                    micro_batches=len(self.sizes),
                    samples=inputs.samples,
                    overlap=overlap,
                    clocks=clocks,
                    deadline=clocks.run_s,
                    may_lose=faults.lost_answers > 0,
                    resume_at=resume_at,
                )
            )
            for rank in range(len(shards))
        ]

    def run(self) -> list[Rank]:
        self.post(0, 0.0, Started())
        now, started = 0.0, {0}
        while any(not self.ranks[r].over for r in started):
            clock = min(self.ranks[r].worker.next_clock() for r in started if not self.ranks[r].over)
            if self.heap and self.heap[0][0] <= clock:
                now, _, rank, event = heapq.heappop(self.heap)
            else:
                now = max(now, clock)
                rank = min(
                    (r for r in started if not self.ranks[r].over),
                    key=lambda r: self.ranks[r].worker.next_clock(),
                )
                event = Ticked()
            if isinstance(event, Started):
                started.add(rank)
            if self.faults.stops is not None and len(started) == len(self.ranks):
                stopping, at = self.faults.stops
                self.ranks[stopping].stopped |= now >= at
            if not self.ranks[rank].stopped:
                self.handle(rank, event, now)
        return self.ranks

    def post(self, rank: int, time: float, event: Event | bytes) -> None:
        heapq.heappush(self.heap, (time, next(self.order), rank, event))

    def some(self, longest: float = 1.0) -> float:
        """Return a random delay in seconds with a heavy tail, at most `longest`."""
        return self.random.random() ** 4 * longest

    def handle(self, rank: int, event: Event | bytes, now: float) -> None:
        me = self.ranks[rank]
        if isinstance(event, bytes):
            me.mailbox.append(event)
            events: list[Event] = []
        else:
            events = [event]
        if me.state is not None and not me.worker.finished:
            for body in me.mailbox:
                before = me.state.resident_bytes()
                accepted = me.state.accept(body)
                if accepted.status == "new":
                    assert accepted.kind is not None
                    if accepted.kind == Kind.DATA:
                        step = Step((accepted.layer or 0) + 1, accepted.micro_batch or 0)
                        self.note_early(rank, me, step, me.state.resident_bytes() - before)
                    events.append(
                        Arrived(
                            Kind(accepted.kind),
                            accepted.layer or 0,
                            accepted.micro_batch or 0,
                            accepted.source or 0,
                            accepted.edge or 0,
                            accepted.complete,
                            accepted.payload or b"",
                        )
                    )
            me.mailbox.clear()
        for one in events:
            for action in me.worker.handle(one, now):
                self.log.append((now, rank, action))
                self.execute(rank, me, action, now)

    def execute(self, rank: int, me: Rank, action: Action, now: float) -> None:  # noqa: C901 - one case an action
        match action:
            case StartChild(rank=child):
                self.ranks[child].starter = rank
                if child != self.faults.silent:
                    self.post(child, now + self.some(5.0), Started())
            case CheckChild(rank=child):
                self.post(rank, now + self.some(), ChildChecked(child, child != self.faults.silent))
            case Load():
                shard, kernel = self.shards[rank]
                folder, most = None, 1 << 62
                if self.spill is not None:
                    folder, most = str(self.spill.of(rank)), self.spill.bytes
                    self.spill.of(rank).mkdir()
                me.state = RankState(kernel, self.id, self.attempt, PLAN, self.sizes, 1, folder, most, self.wire)
                if self.resume_at:
                    for micro_batch in range(len(self.sizes)):
                        step = Step(self.resume_at - 1, micro_batch)
                        me.state.restore(*step, self.earlier[rank].rows[step])
                else:
                    for micro_batch, feature, payload in self.inputs.blocks:
                        me.state.put_input(micro_batch, feature, payload)
                time = now
                for layers in range(max(1, self.resume_at), shard.plan.layers + 1):
                    time += self.some(3.0)
                    self.post(rank, time, Loaded(shard.plan, layers))
            case Compute():
                try:
                    self.compute(rank, me, action, now)
                except NonFiniteError as error:
                    _, layer, row = error.args
                    neuron = int(self.shards[rank][0].parts[layer].rows[row])
                    self.post(rank, now + self.some(), Failed(overflow(layer, neuron, rank)))
            case Restore(step=step):
                self.computed(rank, me, step, Phase.ALL, now)
            case Send(step=step):
                frames = me.packed.pop(step)
                me.kept.keep(step, frames)
                for frame in frames:
                    self.deliver(frame, now, lost=self.faults.lost_answers)
                self.post(rank, now + self.some(), Sent(step))
            case AskAgain(step=step, sources=sources, number=number):
                control = Kind.REPEAT, number, list(sources), 0, 1, repeat_payload(step)
                body = seal(self.id, self.attempt, PLAN, rank, *control)
                self.deliver(Frame(Kind.REPEAT, number, 0, sources, body), now)
            case SendAgain(step=step, target=target):
                for frame in me.kept.of(step, target):
                    self.deliver(frame, now)
            case SendGather(target=target, summary=summary):
                layers = len(self.shards[rank][0].parts)
                pieces = [summary[:5], summary[5:]] if summary else [b""]
                for part, piece in enumerate(pieces):
                    control = Kind.GATHER, layers, [target], part, len(pieces), piece
                    body = seal(self.id, self.attempt, PLAN, rank, *control)
                    self.deliver(Frame(Kind.GATHER, layers, 0, (target,), body), now)
                self.post(rank, now + self.some(), Sent())
            case StoreResult():
                assert me.state is not None
                summary = b""
                if self.output == "rows":
                    me.outputs = [me.state.output(m) for m in range(len(self.sizes))]
                else:
                    summary = encode(concatenate([me.state.reduce(m) for m in range(len(self.sizes))]))
                self.post(rank, now + self.some(), ResultStored(summary))
            case Abort(error=error):
                others = [r for r in range(len(self.ranks)) if r != rank]
                body = seal(self.id, self.attempt, PLAN, rank, Kind.ABORT, 0, others, 0, 1, abort_payload(error))
                self.sent.append(body)
                for target in others:
                    self.post(target, now + self.some(), body)
            case Finish():
                me.finish, me.finished_at = action, now

    def compute(self, rank: int, me: Rank, action: Compute, now: float) -> None:
        layer, micro_batch = action.step
        assert me.state is not None
        if action.phase is not Phase.INTERIOR:
            me.state.assemble(layer, micro_batch)
            me.early.pop(action.step, None)
        me.state.compute(layer, micro_batch, action.phase.value)
        if action.phase is not Phase.BOUNDARY:
            first_sample = sum(self.sizes[:micro_batch])
            me.digests.append((layer, me.state.digest(layer, micro_batch, first_sample)))
            if self.keeps_rows:
                me.rows[action.step] = me.state.rows(layer, micro_batch)
        self.computed(rank, me, action.step, action.phase, now)

    def computed(self, rank: int, me: Rank, step: Step, phase: Phase, now: float) -> None:
        layer, micro_batch = step
        if phase is not Phase.INTERIOR and self.shards[rank][0].plan.sends[layer]:
            assert me.state is not None
            packed = me.state.frames(layer, micro_batch, self.limit)
            me.packed[step] = [Frame(Kind.DATA, layer, micro_batch, tuple(targets), body) for targets, body in packed]
        lagging, more_s = self.faults.lags
        self.post(rank, now + self.some() + more_s * (rank == lagging), Computed(step, phase))

    def note_early(self, rank: int, me: Rank, step: Step, more: int) -> None:
        me.early[step] += more
        me.most_early = max(me.most_early, sum(me.early.values()))
        micro_batches = [waiting.micro_batch for waiting in me.early]
        me.farthest = max(me.farthest, micro_batches.count(step.micro_batch))
        if self.spill is not None:
            files = [file.stat().st_size for file in self.spill.of(rank).iterdir()]
            me.most_spilled = max(me.most_spilled, sum(files))

    def deliver(self, frame: Frame, now: float, lost: float = 0.0) -> None:
        self.sent.append(frame.body)
        for target in frame.targets:
            if self.random.random() < self.faults.lost + lost:
                continue
            copies = 1 + (self.random.random() < self.faults.duplicates)
            for _ in range(copies):
                self.post(target, now + self.some(), frame.body)
            if self.random.random() < self.faults.corrupted:
                place = self.random.randrange(len(frame.body))
                bad = bytearray(frame.body)
                bad[place] ^= 1 << self.random.randrange(8)
                self.post(target, now + self.some(), bytes(bad))
            if self.faults.strays and self.random.random() < self.faults.stray:
                self.post(target, now + self.some(), self.random.choice(self.faults.strays))
