"""Description of a stack's deployed resources: the contents of stack.json."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fsd_inference.limits import MESSAGE_BYTES, MESSAGE_MARGIN_S, publish_quota


@dataclass(frozen=True, slots=True)
class EmulatorInfo:
    """A running emulator of AWS.

    Attributes
    ----------
    endpoint_url : str
        URL at which it answers.
    pid : int
        Id of its process.
    token : str
        Random token on the process's command line, by which it is recognised.
    directory : str
        Directory with its files.
    """

    endpoint_url: str
    pid: int
    token: str
    directory: str


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """A lane: the topics and queues that one attempt of a run uses exclusively.

    Attributes
    ----------
    topic_arns : tuple of str
        ARNs of the SNS topics, one for each block of `RANKS_PER_TOPIC` ranks.
    queue_urls : tuple of str
        URLs of the SQS queues, one for each rank.
    """

    topic_arns: tuple[str, ...]
    queue_urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ManagedInstances:
    """What a function has on Lambda Managed Instances.

    Attributes
    ----------
    environments : int
        Execution environments that are always there, each for one invocation at a time: as many as it can carry out,
        since Lambda starts no others when invocations arrive.
    vcpus : int
        vCPUs of an environment.
    """

    environments: int
    vcpus: int


@dataclass(frozen=True, slots=True)
class WorkerFunction:
    """A Lambda function that runs ranks.

    Attributes
    ----------
    memory_mb : int
        Its memory in MB.
    arn : str
        Its ARN; of a function on Managed Instances, that of the version to be invoked.
    managed : ManagedInstances or None
        What it has on Lambda Managed Instances; None if it does not run there.
    """

    memory_mb: int
    arn: str
    managed: ManagedInstances | None = None


@dataclass(frozen=True, slots=True)
class FunctionsSpec:
    """The Lambda functions of a stack.

    Attributes
    ----------
    coordinator : str
        ARN of the coordinator function, which carries out attempts of runs.
    workers : tuple of WorkerFunction
        Worker functions, one for each memory size, in ascending order.
    failures_queue_url : str
        URL of the queue to which Lambda sends the events of failed invocations.
    timeout_s : float
        Timeout of one invocation in seconds.
    """

    coordinator: str
    workers: tuple[WorkerFunction, ...]
    failures_queue_url: str
    timeout_s: float

    def worker(self, memory_mb: int) -> WorkerFunction | None:
        """Return the worker function with a memory size in MB; None if there is none."""
        return next((function for function in self.workers if function.memory_mb == memory_mb), None)


@dataclass(frozen=True, slots=True)
class StackSpec:
    """The deployed resources of a stack.

    Attributes
    ----------
    name : str
        Prefix of the names of its resources.
    endpoint_url : str or None
        Endpoint of the services; None for AWS itself.
    region : str
        AWS region.
    lanes : tuple of LaneSpec
        Lanes, all with the same number of ranks; empty if runs exchange objects only.
    run_buckets : tuple of str
        Buckets for the objects of runs, which expire. The first one also holds the leases of lanes.
    network_bucket : str
        Bucket for networks and shards, which do not expire.
    message_bytes : int
        Maximum size of a message in bytes, of topics and queues.
    longest_run_s : float
        Longest run in seconds; retention period and visibility timeout of the queues are longer.
    purge_settle_s : float
        Seconds for which a purge may continue in a queue after the request: 60 s on AWS.
    publish_quota : int or None
        Messages a second that the account may publish to SNS, where AWS has changed its quota; None for the region's
        default.
    functions : FunctionsSpec or None
        The Lambda functions; None if ranks are processes on the session's machine.
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
    publish_quota: int | None = None
    functions: FunctionsSpec | None = None
    emulator: EmulatorInfo | None = None

    @property
    def account(self) -> str | None:
        """Id of the AWS account that owns the resources; None if there are neither lanes nor functions to tell it."""
        arns = [arn for lane in self.lanes for arn in lane.topic_arns]
        arns += [] if self.functions is None else [self.functions.coordinator]
        return arns[0].split(":")[4] if arns else None

    @property
    def ranks(self) -> int:
        """Maximum number of workers of a run over queues on this stack."""
        return len(self.lanes[0].queue_urls) if self.lanes else 0

    @property
    def publish_per_s(self) -> int | None:
        """Messages a second that the account may publish; None without a limit, as emulators have none by default."""
        if self.publish_quota is not None or self.endpoint_url is not None:
            return self.publish_quota
        return publish_quota(self.region)

    @property
    def message_lifetime_s(self) -> int:
        """Seconds for which a queue keeps a message, and hides it after it was received."""
        return message_lifetime_s(self.longest_run_s)


def function_name(arn: str) -> str:
    """Return the name of a Lambda function from its ARN, with or without a version."""
    return arn.split(":")[6]


def message_lifetime_s(longest_run_s: float) -> int:
    """Return the queues' message retention and visibility timeout, in seconds, for a stack's longest run."""
    return math.ceil(longest_run_s) + MESSAGE_MARGIN_S
