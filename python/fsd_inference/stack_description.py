"""The deployed resources of a stack, as stack.json describes them."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.limits import MESSAGE_BYTES


@dataclass(frozen=True, slots=True)
class EmulatorInfo:
    """A running emulator: where it answers, its process and the token that process carries, and its directory."""

    endpoint_url: str
    pid: int
    token: str
    directory: str


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """The queues one (run, attempt) holds: a topic for each block of `RANKS_PER_TOPIC` ranks, a queue for each rank."""

    topic_arns: tuple[str, ...]
    queue_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerFunction:
    """A Lambda function that runs ranks: its memory in MB, and its ARN."""

    memory_mb: int
    arn: str


@dataclass(frozen=True, slots=True)
class FunctionsSpec:
    """The Lambda functions of a stack.

    Attributes
    ----------
    coordinator : str
        ARN of the function that carries out runs.
    workers : tuple of WorkerFunction
        One a memory size, ascending.
    failures_queue_url : str
        Where Lambda sends the events of invocations that ended without an answer.
    timeout_s : float
        Longest time of one invocation.
    """

    coordinator: str
    workers: tuple[WorkerFunction, ...]
    failures_queue_url: str
    timeout_s: float

    def worker(self, memory_mb: int) -> WorkerFunction | None:
        """Return the function of that memory size, or None."""
        return next((function for function in self.workers if function.memory_mb == memory_mb), None)


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The deployed resources, as stack.json describes them.

    Attributes
    ----------
    name : str
        What the names of its resources begin with.
    endpoint_url : str or None
        Where the services answer; None for AWS itself.
    region : str
    lanes : tuple of LaneSpec
        All of the same number of ranks; none where runs exchange objects only.
    run_buckets : tuple of str
        Buckets of what a run needs and leaves; their objects expire. Leases are kept in the first.
    network_bucket : str
        Bucket of networks and shards; nothing expires.
    message_bytes : int
        Largest message the topics and queues take.
    longest_run_s : float
        Queues keep and hide messages for longer than this.
    purge_settle_s : float
        How long a purge may go on in a queue after it was asked for: 60 s on AWS.
    functions : FunctionsSpec or None
        The Lambda functions; without them ranks are processes of the session's machine.
    emulator : EmulatorInfo or None
        The emulator that was started for this stack.
    """

    name: str
    endpoint_url: str | None
    region: str
    lanes: tuple[LaneSpec, ...]
    run_buckets: tuple[str, ...]
    network_bucket: str
    message_bytes: int = MESSAGE_BYTES
    longest_run_s: float = 900.0
    purge_settle_s: float = 60.0
    functions: FunctionsSpec | None = None
    emulator: EmulatorInfo | None = None

    @property
    def ranks(self) -> int:
        """The most workers that a run on this stack can have over queues."""
        return len(self.lanes[0].queue_urls) if self.lanes else 0
