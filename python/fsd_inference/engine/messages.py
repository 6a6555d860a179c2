"""The events that the worker's state machine takes and the actions that it returns."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from fsd_inference.channels.base import Kind
from fsd_inference.errors import RunError
from fsd_inference.partitioning.plan import RankPlan


class Step(NamedTuple):
    """The unit of work: one layer applied to one micro-batch. Steps are ordered by layer, then micro-batch."""

    layer: int
    micro_batch: int


class Phase(StrEnum):
    """The rows of a step to compute: those that other ranks need (boundary), the rest (interior), or all."""

    BOUNDARY = "boundary"
    INTERIOR = "interior"
    ALL = "all"


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The worker has started."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first `layers` layers of the shard (None: all) and the input rows are in memory."""

    plan: RankPlan
    layers: int | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """The inbox accepted a new frame.

    `complete` is true if the frame was the last missing part of its edge in a step, or of its control message; then
    `payload` is the whole control message.
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
    """All parts of these (source, edge) pairs of a step have arrived: several `Arrived` in one, for the simulator."""

    layer: int
    micro_batch: int
    edges: Collection[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Computed:
    """A phase of a step is done; boundary rows that other ranks need are packed and held until `Send`."""

    step: Step
    phase: Phase


@dataclass(frozen=True, slots=True)
class Sent:
    """The service has accepted the frames of a `Send` (those of `step`) or of `SendGather` (`step` is None)."""

    step: Step | None = None


@dataclass(frozen=True, slots=True)
class ResultStored:
    """The rank's outputs are stored; `summary` is its encoded per-sample summary (empty if the output is rows)."""

    summary: bytes


@dataclass(frozen=True, slots=True)
class ChildChecked:
    """The answer to `CheckChild`: whether the rank has claimed its place."""

    rank: int
    claimed: bool


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """A child ended prematurely; `reported` says whether it had sent its error to all ranks before."""

    rank: int
    reason: str
    reported: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation of this rank failed; `secondary` if only because another rank is gone, which may yet say why."""

    error: RunError
    secondary: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; timeouts may have expired."""


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
    """Start a child rank of the launch tree."""

    rank: int


@dataclass(frozen=True, slots=True)
class CheckChild:
    """Check whether a started rank has claimed its place; answered by `ChildChecked`."""

    rank: int


@dataclass(frozen=True, slots=True)
class Load:
    """Read the shard and the input rows; answered by one or more `Loaded`."""


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute rows of a step, after unpacking its inputs if that is still to be done; answered by `Computed`."""

    step: Step
    phase: Phase


@dataclass(frozen=True, slots=True)
class Restore:
    """Pack the boundary rows of a step whose rows come from a checkpoint; answered by `Computed`, of all rows."""

    step: Step


@dataclass(frozen=True, slots=True)
class Send:
    """Send the packed boundary rows of a step; answered by `Sent`."""

    step: Step


@dataclass(frozen=True, slots=True)
class AskAgain:
    """Ask `sources` to send the frames of a step again, which may be lost; `number` counts the rank's requests."""

    step: Step
    sources: tuple[int, ...]
    number: int


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Send the frames of a step that are for `target` once more, if they are still there."""

    step: Step
    target: int


@dataclass(frozen=True, slots=True)
class StoreResult:
    """Store this rank's outputs; answered by `ResultStored`."""


@dataclass(frozen=True, slots=True)
class SendGather:
    """Send `target` the merged summary of this subtree, which also says that it is done; answered by `Sent`."""

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


Action = (
    StartChild
    | CheckChild
    | Load
    | Compute
    | Restore
    | Send
    | AskAgain
    | SendAgain
    | StoreResult
    | SendGather
    | Abort
    | Finish
)
