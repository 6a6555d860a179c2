"""The platforms that the workers of a session run on: local processes, or the Lambda functions of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fsd_inference.config import FunctionSettings, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.forecast.memory import function_mb
from fsd_inference.forecast.payloads import dense_payloads
from fsd_inference.launch.server import AWS_MODULES, Server
from fsd_inference.progress import Progress, task, told_of_waits
from fsd_inference.session.executor import Executor, LocalExecutor
from fsd_inference.session.fitting import check_ranks
from fsd_inference.session.sharded_network import ShardedNetwork, StoredPlan
from fsd_inference.stack_description import StackSpec

# Modules that import boto3 are imported lazily: it takes a third of a second, and only sessions on AWS need it.


class Platform(Protocol):
    """A place where workers run: opens an executor, and deploys the shards of the network to its store."""

    def open(self) -> Executor:
        """Open an executor, which the caller closes."""

    def deploy(self, executor: Executor) -> StoredPlan:
        """Make the shards available in the store of the executor, and return the plan that they belong to."""


class ProcessPlatform:
    """Processes of this machine that exchange over sockets or a stack's services; partitions and uploads the network.

    Parameters
    ----------
    channel : {"local", "queue", "object"}
    network : ShardedNetwork
    stack : Path, optional
        Without one, "queue" and "object" start an emulated stack, which the executor takes down when it is closed.
    progress : Progress
    """

    delay_s: float = 0.0
    """Latency added to every frame, in seconds; benchmarks set it, because emulated services have almost none."""

    def __init__(self, channel: str, network: ShardedNetwork, *, stack: Path | None, progress: Progress) -> None:
        self._channel = channel
        self._network = network
        self._stack = stack
        self._progress = progress

    def open(self) -> Executor:
        """Partition the network while the fork server starts, then open an executor.

        A network that is invalid or too large for this machine must not start an emulated stack.
        """
        server = Server(() if self._channel == "local" else AWS_MODULES)
        server.warm_up()
        try:
            self._network.cut(self._progress)
            check_ranks(self._network.shard_bytes())
            waits = told_of_waits(self._progress)
            if self._channel == "local":
                return LocalExecutor(server, self.delay_s, waits)
            from fsd_inference.session.stack_executor import StackExecutor  # noqa: PLC0415 - see the module

            with task(self._progress, "stack"):
                return StackExecutor(self._channel, self._stack, self._network.workers, server, self.delay_s, waits)
        except BaseException:
            server.close()
            raise

    def deploy(self, executor: Executor) -> StoredPlan:
        """Upload the shards."""
        return self._network.upload(executor.plans, self._progress)


class FunctionPlatform:
    """Lambda functions of a stack, to which the network has been pushed.

    Parameters
    ----------
    channel : {"serial", "queue", "object"}
    network : ShardedNetwork
    settings : RunSettings
    stack : Path
        The ``stack.json``.
    described : StackSpec
        Its content.
    replicas : int
        Number of runs in parallel.
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
        """Open an executor, which the caller closes."""
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
        """Find the plan that was pushed to the stack for this network."""
        self._stored = self._network.find(executor.plans, self._stack)
        return self._stored

    def _need_mb(self, spec: RunSpec) -> float:
        """Return the memory in MB that a worker function needs in the worst case: no activation is zero."""
        assert self._stored is not None  # noqa: S101 - `deploy` comes before any run
        manifest, plan = self._stored.manifest, self._stored.plan
        parts = spec.settings.micro_batches
        payloads = dense_payloads(plan, samples=spec.samples, micro_batches=parts, features=spec.features)
        largest, stores = max(entry.size for entry in manifest.shards), spec.settings.checkpoint_every > 0
        return function_mb(plan, manifest.widths[:-1], largest, payloads, checkpoints=stores)
