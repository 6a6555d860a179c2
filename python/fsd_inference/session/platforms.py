"""What a session's workers run on: processes of this machine, or functions of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fsd_inference.config import FunctionSettings, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.forecast.memory import function_mb
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.progress import Progress, task, told_of_waits
from fsd_inference.session.executor import Executor, LocalExecutor
from fsd_inference.session.sharded_network import ShardedNetwork, StoredPlan
from fsd_inference.stack_description import StackSpec

# boto3 takes a third of a second to import, which sessions without AWS need not wait for.


class Platform(Protocol):
    """Opens an executor, and has the network's shards where its ranks read them."""

    def open(self) -> Executor:
        """Open an executor."""

    def deploy(self, executor: Executor) -> StoredPlan:
        """Put the shards there, or find them."""


class ProcessPlatform:
    """Processes of this machine, over sockets or a stack's services; the network is cut and uploaded.

    Parameters
    ----------
    channel : {"local", "queue", "object"}
    network : ShardedNetwork
    stack : Path, optional
        Without one, "queue" and "object" make an emulated stack that goes with the executor.
    progress : Progress
    """

    delay_s: float = 0.0
    """Latency on the way of every frame, in seconds: set by who measures what it costs, since emulators have none."""

    def __init__(self, channel: str, network: ShardedNetwork, *, stack: Path | None, progress: Progress) -> None:
        self._channel = channel
        self._network = network
        self._stack = stack
        self._progress = progress

    def open(self) -> Executor:
        """Open an executor; what cannot be cut is found out first."""
        self._network.cut(self._progress)
        if self._channel == "local":
            return LocalExecutor(self.delay_s)
        from fsd_inference.session.stack_executor import StackExecutor  # noqa: PLC0415 - see the module

        with task(self._progress, "stack"):
            return StackExecutor(
                self._channel, self._stack, self._network.workers, self.delay_s, told_of_waits(self._progress)
            )

    def deploy(self, executor: Executor) -> StoredPlan:
        """Upload the shards."""
        return self._network.upload(executor.plans, self._progress)


class FunctionPlatform:
    """Functions of a stack, to which the network was pushed.

    Parameters
    ----------
    channel : {"serial", "queue", "object"}
    network : ShardedNetwork
    settings : RunSettings
    stack, described
        The ``stack.json``, and what it says.
    replicas : int
        Runs at a time.
    functions : FunctionSettings
    progress : Progress
    """

    def __init__(
        self,
        channel: str,
        network: ShardedNetwork,
        settings: RunSettings,
        *,
        stack: Path,
        described: StackSpec,
        replicas: int,
        functions: FunctionSettings,
        progress: Progress,
    ) -> None:
        self._channel = channel
        self._network = network
        self._settings = settings
        self._stack, self._described = stack, described
        self._replicas = replicas
        self._functions = functions
        self._progress = progress
        self._stored: StoredPlan | None = None

    def open(self) -> Executor:
        """Open an executor."""
        from fsd_inference.aws.lambda_executor import LambdaExecutor  # noqa: PLC0415 - see the module

        with task(self._progress, "stack"):
            return LambdaExecutor(
                self._channel,
                self._described,
                self._settings,
                need_mb=self._need_mb,
                memory_mb=self._functions.memory_mb,
                synchronous=self._functions.synchronous,
                runs=self._replicas,
                on_wait=told_of_waits(self._progress),
            )

    def deploy(self, executor: Executor) -> StoredPlan:
        """Find what was pushed."""
        self._stored = self._network.find(executor.plans, self._stack)
        return self._stored

    def _need_mb(self, spec: RunSpec) -> float:
        """Return the memory that a worker function should have, if no sample dies and no activation is zero."""
        assert self._stored is not None  # noqa: S101 - there is a plan before there is a run
        manifest, plan = self._stored.manifest, self._stored.plan
        parts = spec.settings.micro_batches
        payloads = dense_payloads(plan, samples=spec.samples, micro_batches=parts, features=spec.features)
        return function_mb(plan, manifest.widths[:-1], max(entry.size for entry in manifest.shards), payloads)
