"""The events that invoke the Lambda functions; docs/events.md documents them for clients in other languages."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.tree import Tree
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.fields import Fields
from fsd_inference.limits import DEEPEST_TREE, LANE_WAIT_S
from fsd_inference.stack_description import StackSpec

EVENT_VERSION = 1

WAKE_EVENT = {"version": EVENT_VERSION, "wake": True}
"""The event that wakes functions: a worker does nothing, the coordinator wakes the worker functions."""

CHANNELS = ("serial", "queue", "object")


@dataclass(frozen=True, slots=True)
class RunEvent:
    """The event that requests one attempt at a run from the coordinator.

    Attributes
    ----------
    spec : RunSpec
        The attempt. Its deadline is ignored, as the coordinator sets it; so are its threads, which the worker functions
        derive from their memory.
    channel : {"serial", "queue", "object"}
        The channel over which ranks exchange frames; "serial" is for a single worker, which exchanges nothing.
    memory_mb : int
        Memory in MB of the worker function to use.
    lane_wait_s : float
        Longest wait for a free lane in seconds, for "queue".
    queued_since : float or None
        Time at which this attempt was first told to wait for admission, in seconds since the epoch: `received` of its
        first status "queued"; None if it was not.
    """

    spec: RunSpec
    channel: str
    memory_mb: int
    lane_wait_s: float = LANE_WAIT_S
    queued_since: float | None = None

    def __post_init__(self) -> None:
        if self.channel not in CHANNELS:
            raise SettingError(f"'channel' must be one of {', '.join(CHANNELS)}, not {self.channel!r}")
        if self.channel == "serial" and self.spec.settings.workers != 1:
            raise SettingError(f"channel 'serial' takes a plan for 1 worker, not {self.spec.settings.workers}")

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON value."""
        settings = self.spec.settings
        return {
            "version": EVENT_VERSION,
            "run": self.spec.run,
            "attempt": self.spec.attempt,
            "plan": self.spec.plan,
            "samples": self.spec.samples,
            "features": self.spec.features,
            "channel": self.channel,
            "memory_mb": self.memory_mb,
            "lane_wait_s": self.lane_wait_s,
            "queued_since": self.queued_since,
            "workers": settings.workers,
            "branching": settings.branching,
            "micro_batches": settings.micro_batches,
            "overlap": settings.overlap,
            "output": settings.output,
            "wire": settings.wire,
            "verify": settings.verify,
            "first_sample": self.spec.first_sample,
            "checkpoint_every": settings.checkpoint_every,
            "restart_stragglers": settings.restart_stragglers,
            "resume_at": self.spec.resume_at,
            "connection_s": list(self.spec.connection_s),
            **asdict(settings.clocks),
        }

    @classmethod
    def from_json(cls, value: object) -> RunEvent:
        """Parse and validate an event; raise an `InputError` that names the invalid field."""
        fields = _versioned(value)
        default = RunSettings()
        settings = RunSettings(
            workers=fields.take("workers", int),
            branching=fields.take_or("branching", default.branching),
            micro_batches=fields.take_or("micro_batches", default.micro_batches),
            overlap=fields.take_or("overlap", default.overlap),
            output=fields.take_or("output", default.output),
            wire=fields.take_or("wire", default.wire),
            verify=fields.take_or("verify", default.verify),
            checkpoint_every=fields.take_or("checkpoint_every", default.checkpoint_every),
            restart_stragglers=fields.take_or("restart_stragglers", default.restart_stragglers),
            clocks=Clocks(*(fields.take_number_or(name, seconds) for name, seconds in asdict(default.clocks).items())),
        )
        spec = RunSpec(
            run=fields.take("run", str),
            attempt=fields.take_or("attempt", 0),
            plan=fields.take("plan", str),
            samples=fields.take("samples", int),
            features=fields.take("features", int),
            deadline=0.0,
            settings=settings,
            first_sample=fields.take_or("first_sample", 0),
            resume_at=fields.take_or("resume_at", 0),
            connection_s=fields.take_numbers_if("connection_s"),
        )
        event = cls(
            spec=spec,
            channel=fields.take("channel", str),
            memory_mb=fields.take("memory_mb", int),
            lane_wait_s=fields.take_number_or("lane_wait_s", LANE_WAIT_S),
            queued_since=fields.take_number_if("queued_since"),
        )
        fields.end()
        return event


@dataclass(frozen=True, slots=True)
class RankEvent:
    """The event that starts one rank of an attempt, sent by its parent in the launch tree.

    Attributes
    ----------
    spec : RunSpec
        The attempt.
    rank : int
        The rank to run.
    starter : int or None
        The rank that sends the event; None for the coordinator.
    channel : {"serial", "queue", "object"}
    memory_mb : int
        Memory in MB of the worker function that runs the ranks.
    lane : int or None
        The lane that the attempt holds, for "queue".
    code : str
        Digest of the sender's code; a function with different code refuses the event.
    stack : str
        Digest of the ``stack.json`` that the coordinator has read.
    """

    spec: RunSpec
    rank: int
    starter: int | None
    channel: str
    memory_mb: int
    lane: int | None
    code: str
    stack: str

    def child(self, rank: int) -> RankEvent:
        """Return the event with which this rank starts its child `rank`."""
        return replace(self, rank=rank, starter=self.rank)

    def to_json(self) -> dict[str, Any]:
        """Return the event as a JSON value."""
        names = ("rank", "starter", "channel", "memory_mb", "lane", "code", "stack")
        return {
            "version": EVENT_VERSION,
            "spec": json.loads(self.spec.to_json()),
            **{name: getattr(self, name) for name in names},
        }

    @classmethod
    def from_json(cls, value: object) -> RankEvent:
        """Parse and validate an event; raise an `InputError` that names the invalid field."""
        fields = _versioned(value)
        event = cls(
            spec=RunSpec.from_json(json.dumps(fields.take("spec", dict))),
            rank=fields.take("rank", int),
            starter=fields.take_optional("starter", int),
            channel=fields.take("channel", str),
            memory_mb=fields.take("memory_mb", int),
            lane=fields.take_optional("lane", int),
            code=fields.take("code", str),
            stack=fields.take("stack", str),
        )
        fields.end()
        if not 0 <= event.rank < event.spec.settings.workers:
            raise FileFormatError(f"'rank' must be from 0 to {event.spec.settings.workers - 1}, not {event.rank}")
        if event.channel not in CHANNELS or (event.channel == "queue") != (event.lane is not None):
            raise FileFormatError(f"'channel' {event.channel!r} and 'lane' {event.lane!r} do not go together")
        return event


def check_fit(event: RunEvent, stack: StackSpec) -> None:
    """Raise `SettingError` if a stack can never carry out a run, because of its functions, memory sizes or queues."""
    settings = event.spec.settings
    if stack.functions is None:
        raise SettingError(f"stack {stack.name} has no functions; deploy an image or a package of them first")
    if stack.functions.worker(event.memory_mb) is None:
        sizes = ", ".join(str(worker.memory_mb) for worker in stack.functions.workers)
        raise SettingError(f"stack {stack.name} has no workers of {event.memory_mb} MB; it has {sizes}")
    if event.channel == "queue" and settings.workers > stack.ranks:
        raise SettingError(
            f"stack {stack.name} has queues for {stack.ranks} workers, not {settings.workers}; "
            "use fewer, channel 'object', or a stack with more ranks"
        )
    check_depth(settings.workers, settings.branching)


def check_depth(workers: int, branching: int) -> None:
    """Raise `SettingError` for a launch tree deeper than AWS allows, naming the smallest branching that works."""
    depth = Tree(workers, branching).depth
    if depth > DEEPEST_TREE:
        least = next(b for b in range(branching + 1, workers + 1) if Tree(workers, b).depth <= DEEPEST_TREE)
        raise SettingError(
            f"a launch tree of {workers} workers with branching {branching} is {depth} levels deep; AWS stops chains "
            f"of more than {DEEPEST_TREE}; use a branching of at least {least}"
        )


def _versioned(value: object) -> Fields:
    fields = Fields(value, "", "the event")
    version = fields.take("version", int)
    if version != EVENT_VERSION:
        raise FileFormatError(
            f"the event has version {version}, and these functions read version {EVENT_VERSION}: "
            "use the release of the client that the functions were deployed with"
        )
    return fields
