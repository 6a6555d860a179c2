"""The worker's state machine: takes events, returns actions, does no I/O and reads no clock.

The threaded driver, the tests under virtual time and the simulator all run this class. It guarantees that a step is
computed once its layer is loaded and all its inputs have arrived, in the order (layer, micro-batch) among the steps
that are ready; that sends never block computing (unless overlap is off); and that every path ends in exactly one
`Finish`, by the deadline at the latest.
"""

from __future__ import annotations

import json
from collections import deque

from fsd_inference.channels.base import Expected, Kind
from fsd_inference.config import Clocks
from fsd_inference.engine.gather import merge_encoded
from fsd_inference.engine.messages import (
    Abort,
    Action,
    Arrived,
    ArrivedEdges,
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
from fsd_inference.engine.repeating import ASKS, Repeats, parse_repeat
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import (
    AbortedError,
    DeadlineError,
    HandedOnError,
    RunError,
    StallError,
    StartError,
    WorkerDiedError,
    run_error_from_record,
)
from fsd_inference.fields import load_json
from fsd_inference.partitioning.plan import RankPlan
from fsd_inference.rank_report import Position

_ABORT_GRACE_S = 2.0
"""Seconds that a secondary failure waits for the abort from the rank that failed first."""


class Worker:
    """The state machine of one rank in one attempt.

    Parameters
    ----------
    rank : int
        This rank.
    tree : Tree
        The launch tree, which is also the gather tree.
    micro_batches : int
        Number of micro-batches (all non-empty).
    samples : int
        Samples in the whole batch (the length of summaries).
    overlap : bool
        Whether to compute boundary rows first and the interior rows while the boundary rows are being sent.
    clocks : Clocks
        Timeouts: of starting a rank, of a stall, and of the run.
    deadline : float
        When the run must have ended, on the clock whose time `handle` receives.
    may_lose : bool, optional
        Whether the channel may lose frames, so that those that are late are asked for again.
    hands_on : bool, optional
        Whether another attempt goes on after the deadline.
    resume_at : int, optional
        The layer at which the attempt starts. The rows of the layer before come from a checkpoint and are sent as the
        first steps, which receive nothing.
    """

    def __init__(
        self,
        *,
        rank: int,
        tree: Tree,
        micro_batches: int,
        samples: int,
        overlap: bool,
        clocks: Clocks,
        deadline: float,
        may_lose: bool = False,
        hands_on: bool = False,
        resume_at: int = 0,
    ) -> None:
        self.rank = rank
        self._tree = tree
        self._samples = samples
        self._overlap = overlap
        self._clocks = clocks
        self._deadline = deadline
        self._hands_on = hands_on
        self._repeats = Repeats(clocks.stall_s) if may_lose else None

        self._plan: RankPlan | None = None
        self._loaded = 0  # layers that are in memory
        self._resume_at = resume_at
        self._progress = [max(0, resume_at - 1)] * micro_batches  # the layer that each micro-batch computes next
        self._blocked_since = [0.0] * micro_batches  # since when that layer waits only for rows of other ranks
        self._phases: deque[Phase] = deque()  # phases of the current step that are still to be issued
        self._computing: Step | None = None
        self._early: list[ArrivedEdges] = []  # edges that arrived before the plan was loaded
        self._inputs: dict[Step, dict[tuple[int, int], None]] = {}  # steps not yet computed -> their missing edges
        self._heard: dict[int, float] = {}  # source -> when its last frame arrived

        self._unsent: set[Step | None] = set()  # steps whose frames the service has not accepted; None: the gather
        self._boundary_done: Step | None = None  # the current step, once its boundary rows are computed
        self._stored = False
        self._gather_sent = False
        self._summaries: dict[int, bytes] = {}  # rank itself and each child -> summary of its subtree
        self._children = tree.children(rank)
        self._unreported = set(self._children)
        self._children_due = 0.0
        # A secondary failure, and when to report it if no abort has explained it.
        self._secondary: tuple[RunError, float] | None = None
        self._finished = False

    # --- what the driver reads ---------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether `Finish` has been returned."""
        return self._finished

    def expected(self) -> list[Expected]:
        """Return the frames to receive, the most urgent first; empty if no frame can be of use now.

        Other ranks send the frames of a step at about the same time as this one, so a step's frames are polled only
        once the service has accepted this rank's own: earlier polls would be billed and find nothing. After a secondary
        failure the abort from the rank that failed first is expected too.
        """
        if self._finished or self._plan is None:
            return []
        missing = [
            Expected(Kind.DATA, step.layer - 1, step.micro_batch, source)
            for step in self.wanted()
            for source in dict.fromkeys(source for source, _ in self._missing(step))
        ]
        missing += [Expected(Kind.GATHER, self._plan.layers, 0, child) for child in self.gathers()]
        if self._secondary is not None:
            missing.append(Expected(Kind.ABORT, 0, 0, self.rank))
        return missing

    def wanted(self) -> list[Step]:
        """Return the steps whose missing inputs are to be received, the most urgent first."""
        steps: list[Step] = []
        if self._plan is None:
            return steps
        for layer, micro_batch in sorted(zip(self._progress, range(len(self._progress)), strict=True)):
            # The next step if its inputs are incomplete, otherwise the step after it.
            for needed in range(max(self._resume_at, layer), min(layer + 2, self._plan.layers)):
                step = Step(needed, micro_batch)
                if self._missing(step):
                    if self._has_sent(Step(needed - 1, micro_batch)):
                        steps.append(step)
                    break
        return steps

    def gathers(self) -> list[int]:
        """Return the children whose summaries are to be received."""
        return [child for child in self._children if child not in self._summaries] if self._stored else []

    def _has_sent(self, step: Step) -> bool:
        done = self._progress[step.micro_batch] > step.layer or self._boundary_done == step
        return done and step not in self._unsent

    def position(self) -> Position:
        """Return the lowest unfinished step, and what holds it up."""
        layer, micro_batch = step = Step(*min(zip(self._progress, range(len(self._progress)), strict=True)))
        awaited: list[int] = []
        if self._plan is None:
            return Position("loading its shard", layer, micro_batch, ())
        if self._stored:
            awaited = self.gathers()
        elif layer < self._plan.layers and step != self._computing and self._has_sent(Step(layer - 1, micro_batch)):
            awaited = sorted({source for source, _ in self._missing(step)})
        if self._loaded <= layer < self._plan.layers:
            doing = f"loading layer {self._loaded}"
        elif awaited:
            doing = f"waiting for {', '.join(f'rank {rank}' for rank in awaited)}"
        elif self._computing is not None:
            doing = f"computing layer {self._computing.layer}"
        else:
            doing = "waiting for its sends to complete" if self._unsent else "storing its result"
        return Position(doing, layer, micro_batch, tuple(awaited))

    def next_clock(self) -> float:
        """Return when the next timeout may expire: `handle` must be called with `Ticked` by then."""
        times = [self._deadline]
        if self._unreported:
            times.append(self._children_due)
        if self._secondary is not None:
            times.append(self._secondary[1])
        repeats = None if self._stored else self._repeats  # summaries are not sent again
        for due, source, step in self._stalls():
            times.append(due if repeats is None else repeats.due(due, step, source))
        return min(times)

    # --- the machine -------------------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Action]:  # noqa: C901, PLR0912 - one case an event
        """Process an event and return the actions to carry out."""
        if self._finished:
            return []
        actions: list[Action] = []
        match event:
            case Started():
                self._children_due = now + self._clocks.start_s
                actions += [StartChild(child) for child in self._children]
                actions.append(Load())
            case Loaded(plan=plan, layers=layers):
                self._plan = plan
                self._loaded = plan.layers if layers is None else layers
                for edges in self._early:
                    self._take(edges)
                self._early.clear()
            case Arrived():
                actions += self._arrived(event, now)
            case ArrivedEdges(edges=edges):
                sources = dict.fromkeys([source for source, _ in edges], now)
                self._heard.update(sources)
                self._unreported.difference_update(sources)
                self._take(event)
            case Computed(step=step, phase=phase):
                actions += self._computed(step, phase, now)
            case Sent(step=sent):
                self._unsent.discard(sent)
            case ResultStored(summary=summary):
                self._summaries[self.rank] = summary
                self._stored = True
                self._blocked_since = [now] * len(self._blocked_since)  # from now on it waits for its children
            case ChildChecked(rank=child, claimed=claimed):
                actions += self._checked(child, claimed=claimed)
            case ChildEnded():
                actions += self._child_ended(event, now)
            case Failed(error=error, secondary=secondary):
                actions += self._explain(error, now) if secondary else self._fail(error)
            case Ticked():
                pass
        if not self._finished:
            actions += self._advance()
        if not self._finished:
            actions += self._check_clocks(now)
        return actions

    def _arrived(self, event: Arrived, now: float) -> list[Action]:
        self._heard[event.source] = now
        self._unreported.discard(event.source)
        if not event.complete:
            return []
        match event.kind:
            case Kind.ABORT:
                self._finished = True
                return [Finish(run_error_from_record(_json_object(event.payload)))]
            case Kind.REPEAT:
                step = parse_repeat(event.payload)
                return [] if step is None else [SendAgain(step, event.source)]
            case Kind.GATHER:
                if event.source in self._children:
                    self._summaries[event.source] = event.payload
            case Kind.DATA:
                self._take(ArrivedEdges(event.layer, event.micro_batch, ((event.source, event.edge),)))
        return []

    def _take(self, event: ArrivedEdges) -> None:
        """Note which of a step's inputs are complete."""
        if self._plan is None:
            self._early.append(event)
            return
        step = Step(event.layer + 1, event.micro_batch)
        if not self._progress[step.micro_batch] <= step.layer < self._plan.layers:
            return
        missing = self._missing(step)
        if event.edges is self._plan.receives[step.layer]:
            missing.clear()  # all edges of the step
        for edge in event.edges if missing else ():
            missing.pop(edge, None)

    def _missing(self, step: Step) -> dict[tuple[int, int], None]:
        """Return the missing (source, edge) pairs of a step not yet computed, in the plan's order."""
        assert self._plan is not None  # noqa: S101 - only called once loaded
        if step not in self._inputs:
            needed = self._plan.receives[step.layer] if step.layer >= self._resume_at else ()
            self._inputs[step] = dict.fromkeys(needed)
        return self._inputs[step]

    def _computed(self, step: Step, phase: Phase, now: float) -> list[Action]:
        assert self._plan is not None  # noqa: S101 - computing follows loading
        self._boundary_done = step
        actions: list[Action] = []
        if phase is not Phase.INTERIOR and self._plan.sends[step.layer]:
            self._unsent.add(step)
            actions.append(Send(step))
        if self._phases:
            return [*actions, Compute(step, self._phases.popleft())]
        self._inputs.pop(step, None)
        self._computing = None
        self._progress[step.micro_batch] += 1
        self._blocked_since[step.micro_batch] = now
        if all(layer == self._plan.layers for layer in self._progress):
            actions.append(StoreResult())
        return actions

    def _advance(self) -> list[Action]:
        """Issue the lowest step that is ready; after the last step, the gather."""
        if self._plan is None:
            return []
        if self._stored:
            return self._gather()
        if self._computing is not None or (self._unsent and not self._overlap):
            return []
        for layer, micro_batch in sorted(zip(self._progress, range(len(self._progress)), strict=True)):
            step = Step(layer, micro_batch)
            if layer < self._loaded and not self._missing(step):
                self._computing = step
                if layer < self._resume_at:
                    return [Restore(step)]
                split = self._overlap and self._plan.boundary[layer] > 0 and self._plan.interior[layer] > 0
                self._phases = deque((Phase.BOUNDARY, Phase.INTERIOR) if split else (Phase.ALL,))
                return [Compute(step, self._phases.popleft())]
        return []

    def _gather(self) -> list[Action]:
        if self._unsent or any(child not in self._summaries for child in self._children):
            return []
        try:
            summary = merge_encoded(list(self._summaries.values()), self._samples)
        except ValueError as error:
            return self._fail(RunError(f"rank {self.rank}, gather: {error}", rank=self.rank, operation="gather"))
        parent = self._tree.parent(self.rank)
        if parent is None or self._gather_sent:
            self._finished = True
            return [Finish(None, summary)]
        self._gather_sent = True
        self._unsent.add(None)
        return [SendGather(parent, summary)]

    # --- what goes wrong ---------------------------------------------------------------------------------------------

    def _fail(self, error: RunError) -> list[Action]:
        self._finished = True
        if isinstance(error, AbortedError):
            # Its starter is gone. The rank that knows why sends the abort; one from here could overtake it.
            return [Finish(error)]
        return [Abort(error), Finish(error)]

    def _explain(self, error: RunError, now: float) -> list[Action]:
        """Hold a secondary failure back until the rank that failed first has sent its abort."""
        self._secondary = self._secondary or (error, now + _ABORT_GRACE_S)
        return []

    def _checked(self, child: int, *, claimed: bool) -> list[Action]:
        if claimed:
            self._unreported.discard(child)
            return []
        message = (
            f"rank {child} did not report within {self._clocks.start_s:g} s of being started by rank {self.rank}; "
            "check whether it could start (free concurrency, memory, logs) and try again"
        )
        return self._fail(StartError(message, rank=child, operation="start"))

    def _child_ended(self, event: ChildEnded, now: float) -> list[Action]:
        if event.rank in self._summaries:
            return []
        if event.reported:
            return self._explain(died(event.rank, event.reason), now)
        return self._fail(died(event.rank, event.reason))

    def _stalls(self) -> list[tuple[float, int, Step]]:
        """Return (when the stall timeout expires, source, step of its frames) for all that the rank waits for.

        The summaries of children count as frames of the last layer, which has none.
        """
        if self._plan is None:
            return []
        last = Step(self._plan.layers - 1, 0)
        stalls = [
            (max(self._blocked_since[0], self._heard.get(child, 0.0)) + self._clocks.stall_s, child, last)
            for child in self.gathers()
        ]
        for m, layer in enumerate(self._progress):
            step = Step(layer, m)
            if self._resume_at <= layer < self._plan.layers and step != self._computing:
                for source, _ in self._missing(step):
                    since = max(self._blocked_since[m], self._heard.get(source, 0.0))
                    stalls.append((since + self._clocks.stall_s, source, Step(layer - 1, m)))
        return stalls

    def _check_clocks(self, now: float) -> list[Action]:
        if now >= self._deadline and self._hands_on:
            message = (
                f"rank {self.rank} is near the time limit of its function, {self.position().doing}; the run goes on "
                "from its last checkpoint: if the attempt has stored none, store them more often"
            )
            return self._fail(HandedOnError(message, rank=self.rank, layer=min(self._progress), operation="run"))
        if now >= self._deadline:
            error = DeadlineError(
                f"rank {self.rank} did not finish by the run's deadline ({self._clocks.run_s:g} s), "
                f"{self.position().doing}; allow more time or use more workers",
                rank=self.rank,
                layer=min(self._progress),
                operation="run",
            )
            return self._fail(error)
        if self._secondary is not None and now >= self._secondary[1]:
            return self._fail(self._secondary[0])
        # No timeout starts before its step is blocked: sources are scanned only once one can have expired.
        share = 1 if self._repeats is None else ASKS + 2  # before the first request, which rounding may bring forward
        stalls = self._stalls() if now >= min(self._blocked_since) + self._clocks.stall_s / share else []
        stalled = min((stall for stall in stalls if now >= stall[0]), default=None)
        if stalled is not None:
            _, source, (layer, _) = stalled
            what = "summary" if self._stored else f"frame of layer {layer}"
            message = (
                f"rank {self.rank} has received no {what} from rank {source} "
                f"for {self._clocks.stall_s:g} s; check the log of rank {source} and try again"
            )
            return self._fail(StallError(message, rank=source, layer=layer, operation="receive"))
        if self._unreported and now >= self._children_due:
            # Each child is checked once; the answers arrive as `ChildChecked`.
            asked, self._unreported = sorted(self._unreported), set()
            return [CheckChild(child) for child in asked]
        return [] if self._repeats is None or self._stored else [*self._repeats.ask(stalls, now)]


def died(rank: int, reason: str) -> WorkerDiedError:
    """Return the error for a rank whose process ended prematurely."""
    return WorkerDiedError(
        f"rank {rank} ended before its work was done ({reason}); try again, or with more memory",
        rank=rank,
        operation="run",
    )


def _json_object(payload: bytes) -> dict[str, object]:
    try:
        value = load_json(payload)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {}


def abort_payload(error: RunError) -> bytes:
    """Return the payload of the abort frame that reports `error` to all ranks."""
    return json.dumps(error.record()).encode()
