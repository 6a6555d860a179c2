"""What goes into the worker state machine (events) and what comes out (actions)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from fsd_inference.channels.base import Kind
from fsd_inference.errors import RunError
from fsd_inference.partitioning.plan import RankPlan


class Step(NamedTuple):
    """The unit of work: a layer on a micro-batch. Steps are ordered by layer, then micro-batch."""

    layer: int
    micro_batch: int


class Phase(StrEnum):
    """Which rows of a step: those that other ranks need, the others, or all."""

    BOUNDARY = "boundary"
    INTERIOR = "interior"
    ALL = "all"


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The worker begins."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Shard and input rows are in memory."""

    plan: RankPlan


@dataclass(frozen=True, slots=True)
class Arrived:
    """The inbox took a new frame.

    `complete` says that with it all parts of its edge of a step, or of its control message, have come; `payload` is
    the whole of that message.
    """

    kind: Kind
    layer: int
    micro_batch: int
    source: int
    edge: int
    complete: bool
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class ArrivedEdges:
    """These (source, edge) of a step are complete: as many `Arrived` in one, as the simulator tells them."""

    layer: int
    micro_batch: int
    edges: Collection[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Computed:
    """A phase of a step is done; boundary rows that others need are packed, and kept until `Send`."""

    step: Step
    phase: Phase


@dataclass(frozen=True, slots=True)
class Sent:
    """The service has taken the frames of one `Send`, of `step`, or of `SendGather`."""

    step: Step | None = None


@dataclass(frozen=True, slots=True)
class ResultStored:
    """The outputs of this rank are stored; `summary` is its per-sample part, encoded (empty for whole rows)."""

    summary: bytes


@dataclass(frozen=True, slots=True)
class ChildChecked:
    """The answer to `CheckChild`: whether the rank has claimed its place."""

    rank: int
    claimed: bool


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A child ended by itself. `reported` says that it told its error to all ranks before."""

    rank: int
    reason: str
    reported: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """Something this rank did has failed; `secondary` if that shows another rank's end, which others may explain."""

    error: RunError
    secondary: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


Event = (
    Started
    | Loaded
    | Arrived
    | ArrivedEdges
    | Computed
    | Sent
    | ResultStored
    | ChildChecked
    | ChildEnded
    | Failed
    | Ticked
)

# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a rank of the launch tree."""

    rank: int


@dataclass(frozen=True, slots=True)
class CheckChild:
    """Look whether a started rank has claimed its place; answered by `ChildChecked`."""

    rank: int


@dataclass(frozen=True, slots=True)
class Load:
    """Read the shard and the input rows; answered by `Loaded`."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute rows of a step (unpacking its inputs first if need be); answered by `Computed`."""

    step: Step
    phase: Phase


@dataclass(frozen=True, slots=True)
class Send:
    """Send the boundary rows of a step, which are packed; answered by `Sent`."""

    step: Step


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Store this rank's outputs; answered by `ResultStored`."""


@dataclass(frozen=True, slots=True)
class SendGather:
    """Tell `target` that this subtree is done, with its merged summary; answered by `Sent`."""

    target: int
    summary: bytes


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop all ranks of the attempt."""

    error: RunError


@dataclass(frozen=True, slots=True)
class Finish:
    """The worker is done: with an error, or with the merged summary of its subtree."""

    error: RunError | None
    summary: bytes = b""


Action = StartChild | CheckChild | Load | Compute | Send | StoreResult | SendGather | Abort | Finish
