"""The threads that run a worker's state machine: a compute thread, a receive thread and a pool that starts children.

The state machine runs in the thread that calls `Driver.run`; all other threads, including those of the channel and the
launcher, post events to its queue.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from fsd_inference.channels.base import Body, Channel, Expected, Frame, Kind
from fsd_inference.deadlines import cleaning_up
from fsd_inference.engine.checkpoints import CheckpointWriter
from fsd_inference.engine.control import abort_frame, seal_control
from fsd_inference.engine.gather import encode
from fsd_inference.engine.launcher import Launcher
from fsd_inference.engine.messages import (
    Abort,
    Action,
    Arrived,
    AskAgain,
    CheckChild,
    ChildChecked,
    ChildEnded,
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
from fsd_inference.engine.numeric import beyond_wire, overflow
from fsd_inference.engine.repeating import KeptFrames, repeat_payload
from fsd_inference.engine.results import concatenate, pack_blocks
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.telling import Teller
from fsd_inference.engine.timeline import Timeline
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import Worker
from fsd_inference.errors import ChannelError, PeerGoneError, ResourceLimitError, RunError, as_run_error
from fsd_inference.kernels import NonFiniteError, RankState, WireRangeError
from fsd_inference.limits import CONTROL_BYTES, LONGEST_POLL_S, STARTERS
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.rank_report import Position
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Pace
from fsd_inference.threads import ThreadPool, start


class RankWork(Protocol):
    """A shard whose plan is known: its kernels, and the inputs of one run."""

    @property
    def plan(self) -> RankPlan:
        """The rank's part of the exchange plan."""

    @property
    def state(self) -> RankState:
        """The kernel state of the run."""

    @property
    def digests(self) -> Sequence[int]:
        """The digests of the layers before the one where the attempt starts; none before the first layer is loaded."""

    def load(self) -> Iterator[int]:
        """Load the layers, and what the attempt starts with; yield the number of loaded layers after each."""

    def neuron(self, layer: int, row: int) -> int:
        """Return the global neuron of a local row."""

    def connections(self, layer: int) -> int:
        """Return the connections of the rank's rows of a layer that is loaded."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a rank: an error, or the merged summary of its subtree.

    `noticed` says whether the rank noticed the failure itself, and so told the others of it.
    """

    error: RunError | None
    summary: bytes
    noticed: bool = False


@dataclass(frozen=True, slots=True)
class _Flush:
    """A marker in the event queue: once it is taken, all events posted before it have been handled."""

    number: int


_OPERATIONS: dict[type[Action], str] = {
    StartChild: "start",
    CheckChild: "start",
    Load: "load",
    Compute: "compute",
    Restore: "compute",
    StoreResult: "store",
}


class Driver:
    """The runner of one rank in one attempt.

    Parameters
    ----------
    spec : RunSpec
        The attempt.
    rank : int
        This rank.
    load : callable
        Reads the plan of the shard, or takes the cached shard. Its argument is a future that is done once the rank
        ends, and then ends the loading too.
    store : Store
        Store of claims and results.
    channel : Channel
        Carries the frames; closed by the caller.
    launcher : Launcher
        Starts the children.
    timeline : Timeline
        Records the event log.
    count_requests : callable
        Returns how many requests this rank has made so far.
    on_layer : callable
        Called with the rank's pace after each layer, to report progress.

    Attributes
    ----------
    layers : int
        L, 0 until the first layer is loaded.
    sent : list of (layer, frames, bytes)
        Frames handed to the channel, one entry per send.
    sent_to : dict of int to (frames, bytes)
        Frames handed to the channel, by target; a frame with several targets counts for each of them.
    requests : list of int
        Value of `count_requests` once the first layer was loaded, and at the end of each layer.
    result_bytes : int
        Size of the object with this rank's outputs in bytes.
    checkpoints : list of int
        Bytes of each checkpoint that was stored.
    """

    def __init__(
        self,
        *,
        spec: RunSpec,
        rank: int,
        load: Callable[[Future[None]], RankWork],
        store: Store,
        channel: Channel,
        launcher: Launcher,
        timeline: Timeline,
        count_requests: Callable[[], int],
        on_layer: Callable[[Pace], None],
    ) -> None:
        settings = spec.settings
        self.spec = spec
        self.rank = rank
        self._load = load
        self._store = store
        self._channel = channel
        self._launcher = launcher
        self._timeline = timeline
        self._count_requests = count_requests
        self._on_layer = on_layer
        self.layers = 0
        self.sent: list[tuple[int, int, int]] = []
        self.sent_to: dict[int, tuple[int, int]] = {}
        self.requests: list[int] = []
        self.result_bytes = 0
        self.digests: list[int] = []  # of this rank's part of each layer, if the run is to be verified
        self._sizes = micro_batch_sizes(spec.samples, settings.micro_batches)
        self._firsts = list(itertools.accumulate(self._sizes, initial=spec.first_sample))  # first sample of each
        self._worker = Worker(
            rank=rank,
            tree=Tree(settings.workers, settings.branching),
            micro_batches=len(self._sizes),
            samples=spec.samples,
            overlap=settings.overlap,
            clocks=settings.clocks,
            deadline=spec.deadline,
            may_lose=channel.limits.may_lose,
            hands_on=spec.hands_on,
            resume_at=spec.resume_at,
        )
        self._writer = CheckpointWriter(spec, rank, store, timeline, len(self._sizes))
        self.checkpoints = self._writer.stored
        self._events: queue.SimpleQueue[Event | _Flush] = queue.SimpleQueue()
        self._work: RankWork | None = None
        self._ended: Future[None] = Future()
        self._packed: dict[Step, list[Frame]] = {}  # from the compute thread to the channel's send
        self._kept = KeptFrames()
        self._idle_since = timeline.now()
        self._busy_s = self._kernel_s = self._foreseen_s = 0.0
        self._expected: tuple[Expected, ...] = ()
        self._expected_changed = threading.Condition()
        self._flushed = 0  # number of the last `_Flush` that was taken from the queue
        self._stop = False
        self._has_aborted = False
        self._outcome: Outcome | None = None
        self._teller = Teller(spec.run, rank, timeline.now)

    def run(self) -> Outcome:
        """Run the rank to its end; all threads created here have ended on return."""
        compute = ThreadPool(1, thread_name_prefix="compute")
        background = ThreadPool(STARTERS, thread_name_prefix="start")
        receiver = threading.Thread(target=self._receive, name="receive")
        executors = dict.fromkeys((Compute, Restore, StoreResult), compute)
        executors |= dict.fromkeys((Load, StartChild, CheckChild), background)
        try:
            self._start(receiver)
            self._events.put(Started())
            while not self._worker.finished:
                event = self._next_event()
                self._teller.tell(event, self._expected)
                if isinstance(event, _Flush):
                    self._flush(event)
                    continue
                for action in self._worker.handle(event, self._timeline.now()):
                    executor = executors.get(type(action))
                    if executor is None:
                        self._do_now(action)
                    else:
                        self._submit(executor, action)
                self._publish_expected()
        finally:
            self._ended.set_result(None)
            with self._expected_changed:
                self._stop = True
                self._expected_changed.notify_all()
            background.shutdown(wait=True, cancel_futures=True)
            compute.shutdown(wait=True, cancel_futures=True)
            self._writer.close()
            if receiver.ident is not None:
                receiver.join()
        assert self._outcome is not None  # noqa: S101 - the machine ends with Finish
        return self._outcome

    @property
    def position(self) -> Position:
        """Where the rank is."""
        return self._worker.position()

    def fail(self, error: RunError) -> None:
        """End the run with an error detected outside the engine; may be called from any thread."""
        self._events.put(Failed(error))

    def _fail(self, error: BaseException, operation: str, layer: int | None = None) -> None:
        failure = as_run_error(error, rank=self.rank, operation=operation, layer=layer)
        self._events.put(Failed(failure, secondary=isinstance(error, PeerGoneError)))

    def _start(self, receiver: threading.Thread) -> None:
        try:
            start(receiver)
        except ResourceLimitError as error:
            self._fail(error, "start")

    def _submit(self, executor: ThreadPool, action: Action) -> None:
        try:
            executor.submit(self._do, action)
        except ResourceLimitError as error:
            self._fail(error, _OPERATIONS[type(action)])

    def _next_event(self) -> Event | _Flush:
        wait = self._worker.next_clock() - self._timeline.now()
        try:
            return self._events.get(timeout=max(0.0, wait))
        except queue.Empty:
            return Ticked()

    # --- actions ----------------------------------------------------------------------------------------------------

    def _do(self, action: Action) -> None:
        """Carry out an action that may block; a failure is posted as an event."""
        operation = _OPERATIONS[type(action)]
        layer = action.step.layer if isinstance(action, Compute | Restore) else None
        try:
            match action:
                case StartChild(rank=child):
                    self._launcher.start(child, self._on_child_end)
                case CheckChild(rank=child):
                    claimed = self._store.stat(self.spec.claim_key(child)) is not None
                    self._events.put(ChildChecked(child, claimed))
                case Load():
                    self._load_layers()
                case Compute():
                    self._compute(action)
                case Restore(step=step):
                    self._computed(step, Phase.ALL, self._timeline.now())
                case StoreResult():
                    self._store_result()
        except (NonFiniteError, WireRangeError) as error:
            self._events.put(Failed(self._numeric_error(error)))
        except Exception as error:  # noqa: BLE001 - an action may fail in any way, and the run must end with its reason
            self._fail(error, operation, layer)

    def _load_layers(self) -> None:
        """Load the shard; the rank computes with the layers that are loaded already."""
        began, loaded = self._timeline.now(), 0
        try:
            work = self._work = self._load(self._ended)
            for loaded in work.load():
                if not self.layers:
                    self.layers = work.plan.layers
                    if self.spec.settings.verify:
                        self.digests = [*work.digests, *[0] * (self.layers - len(work.digests))]
                    # The layers before the one whose rows are restored took none.
                    self.requests += [self._count_requests()] * max(1, self.spec.resume_at)
                    self._idle_since = self._timeline.now()
                    self._timeline.add("load", -1, 0, began, self._idle_since)
                self._events.put(Loaded(work.plan, loaded))
                if self._ended.done():
                    return
        except Exception as error:  # noqa: BLE001 - as in `_do`
            self._fail(error, "load", loaded or None)  # before the first layer, what failed may be the input

    def _do_now(self, action: Action) -> None:
        match action:
            case Send(step=step):
                frames = self._packed.pop(step)
                if self._channel.limits.may_lose:
                    self._kept.keep(step, frames)
                self._send(frames, step)
            case AskAgain(step=step, sources=sources, number=number):
                payload = repeat_payload(step)
                self._send_more([seal_control(self.spec, self.rank, Kind.REPEAT, number, sources, 0, 1, payload)])
            case SendAgain(step=step, target=target):
                self._send_more(self._kept.of(step, target))
            case SendGather(target=target, summary=summary):
                self._send(self._gather_frames(target, summary), None)
            case Abort(error=error):
                self._abort(error)
            case Finish(error=error, summary=summary):
                self._outcome = Outcome(error, summary, self._has_aborted)

    def _compute(self, action: Compute) -> None:
        (layer, micro_batch), phase = action.step, action.phase
        state, timeline = self._ready_state(), self._timeline
        if phase is not Phase.INTERIOR:
            timeline.add("wait", layer, micro_batch, self._idle_since, timeline.now())
        began = timeline.now()
        if phase is not Phase.INTERIOR:
            with timeline.measure("unpack", layer, micro_batch):
                state.assemble(layer, micro_batch)
        with timeline.measure(phase.value, layer, micro_batch):
            computing = timeline.now()
            state.compute(layer, micro_batch, phase.value)
            self._kernel_s += timeline.now() - computing
        if phase is not Phase.BOUNDARY and micro_batch == len(self._sizes) - 1:
            self._foreseen_s += self._foreseen(layer)
        self._computed(action.step, phase, began)
        if phase is not Phase.BOUNDARY:
            self._keep(action.step)

    def _computed(self, step: Step, phase: Phase, began: float) -> None:
        """Pack the boundary rows of a step if they are new, and have them sent; the phase took since `began`."""
        layer, micro_batch = step
        if phase is not Phase.INTERIOR and self._plan().sends[layer]:
            with self._timeline.measure("pack", layer, micro_batch):
                limits = self._channel.limits
                packed = self._ready_state().frames(layer, micro_batch, limits.frame_bytes, limits.is_fast)
                self._packed[step] = [
                    Frame(Kind.DATA, layer, micro_batch, tuple(targets), body) for targets, body in packed
                ]
        self._idle_since = self._timeline.now()
        self._busy_s += self._idle_since - began
        if phase is not Phase.BOUNDARY and micro_batch == len(self._sizes) - 1:
            self.requests.append(self._count_requests())
            told = (self._busy_s, self._kernel_s, self._foreseen_s)
            self._on_layer(Pace(self._idle_since, self.rank, layer + 1, *told, of=self.layers))
        self._events.put(Computed(step, phase))

    def _keep(self, step: Step) -> None:
        """Add a step to the digests and the checkpoint of its layer, while its frames travel."""
        layer, micro_batch = step
        state, timeline = self._ready_state(), self._timeline
        began = timeline.now()
        if self.spec.settings.verify:
            with timeline.measure("digest", layer, micro_batch):
                self.digests[layer] += state.digest(layer, micro_batch, self._firsts[micro_batch])
        if self._writer.is_due(layer, self.layers):
            with timeline.measure("pack", layer, micro_batch):
                rows = state.rows(layer, micro_batch, self._channel.limits.is_fast)
            self._writer.take(step, rows, self.digests)
        self._idle_since = timeline.now()
        self._busy_s += self._idle_since - began

    def _foreseen(self, layer: int) -> float:
        """Return the seconds of the kernels that were foreseen for a layer; 0 if none were."""
        if self._work is None or not self.spec.connection_s:
            return 0.0
        return self.spec.connection_s[layer] * self._work.connections(layer) * self.spec.samples

    def _store_result(self) -> None:
        state, summary = self._ready_state(), b""
        with self._timeline.measure("store", self._plan().layers, 0):
            if self.spec.settings.output == "rows":
                blocks = [state.output(m) for m in range(len(self._sizes))]
                result = pack_blocks(blocks)
                self.result_bytes = len(result)
                self._store.put(self.spec.result_key(self.rank), result)
            else:
                parts = [state.reduce(m) for m in range(len(self._sizes))]
                summary = encode(concatenate(parts))
        self._events.put(ResultStored(summary))

    def _send(self, frames: Sequence[Frame], step: Step | None) -> None:
        started, first = self._timeline.now(), frames[0]
        self.sent.append((first.layer, len(frames), sum(len(frame.body) for frame in frames)))
        for frame in frames:
            for target in frame.targets:
                count, size = self.sent_to.get(target, (0, 0))
                self.sent_to[target] = (count + 1, size + len(frame.body))
        try:
            future = self._channel.send(frames)
        except Exception as error:  # noqa: BLE001 - as in `_do`
            self._fail(error, "send", first.layer)
            return

        def taken(done: Future[None]) -> None:
            self._timeline.add("send", first.layer, first.micro_batch, started, self._timeline.now())
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or error is None:
                self._events.put(Sent(step))
            else:
                self._fail(error, "send", first.layer)

        future.add_done_callback(taken)

    def _send_more(self, frames: Sequence[Frame]) -> None:
        """Send frames that no step waits for; if that fails, timeouts end the run as they would have without them."""
        if frames:
            with suppress(ChannelError):
                self._channel.send(frames)

    def _gather_frames(self, target: int, summary: bytes) -> list[Frame]:
        pieces = [summary[i : i + CONTROL_BYTES] for i in range(0, len(summary), CONTROL_BYTES)] or [b""]
        return [
            seal_control(self.spec, self.rank, Kind.GATHER, self._plan().layers, [target], i, len(pieces), piece)
            for i, piece in enumerate(pieces)
        ]

    def _abort(self, error: RunError) -> None:
        """Send an abort to all ranks; if that fails their own timeouts end them, and the original error is kept."""
        self._has_aborted = True
        frame = abort_frame(self.spec, self.rank, error)
        if frame is None:
            return
        try:
            with cleaning_up():
                self._channel.abort(frame)
        except Exception as failed:  # noqa: BLE001 - see above
            error.add_note(f"the abort could not be sent to the other ranks: {failed}")

    def _on_child_end(self, rank: int, reason: str, reported: bool) -> None:
        self._events.put(ChildEnded(rank, reason, reported))

    def _numeric_error(self, error: NonFiniteError | WireRangeError) -> RunError:
        _, layer, row = error.args
        neuron = self._work.neuron(layer, row) if self._work is not None else row
        if isinstance(error, WireRangeError):
            return beyond_wire(layer, neuron, self.rank, self.spec.settings.wire)
        return overflow(layer, neuron, self.rank)

    def _ready_state(self) -> RankState:
        assert self._work is not None  # noqa: S101 - the machine computes only after Loaded
        return self._work.state

    def _plan(self) -> RankPlan:
        assert self._work is not None  # noqa: S101 - the machine computes only after Loaded
        return self._work.plan

    # --- the receiver -----------------------------------------------------------------------------------------------

    def _publish_expected(self) -> None:
        expected = tuple(self._worker.expected())
        with self._expected_changed:
            if expected != self._expected:
                self._expected = expected
                self._expected_changed.notify_all()

    def _flush(self, flush: _Flush) -> None:
        with self._expected_changed:
            self._flushed = flush.number
            self._expected_changed.notify_all()

    def _is_due(self, number: int) -> bool:
        return self._flushed == number and bool(self._expected)

    def _receive(self) -> None:
        """Poll the channel while something is expected, and hand the bodies to the inbox.

        The list of expected frames is read again only after all earlier arrivals have been processed: otherwise the
        channel would poll for frames that have already arrived.
        """
        for number in itertools.count(1):
            self._events.put(_Flush(number))
            with self._expected_changed:
                self._expected_changed.wait_for(lambda: self._stop or self._is_due(number))  # noqa: B023 - called at once
                if self._stop:
                    return
                expected = self._expected
            try:
                for body in self._channel.receive(expected, LONGEST_POLL_S):
                    self._accept(body)
            except PeerGoneError as error:
                self._fail(error, "receive")  # keep receiving: the abort that explains it may follow
            except Exception as error:  # noqa: BLE001 - whatever ends the receiver must end the run with its reason
                self._fail(error, "receive")
                return

    def _accept(self, body: Body) -> None:
        accepted = self._ready_state().accept(body)
        if accepted.status != "new":
            return
        now = self._timeline.now()
        kind, layer, micro_batch = Kind(accepted.kind or 0), accepted.layer or 0, accepted.micro_batch or 0
        self._timeline.add("receive", layer, micro_batch, now, now)
        self._events.put(
            Arrived(
                kind,
                layer,
                micro_batch,
                accepted.source or 0,
                accepted.edge or 0,
                accepted.complete,
                accepted.payload or b"",
            )
        )
