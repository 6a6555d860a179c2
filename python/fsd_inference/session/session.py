"""The session: prepares a network once, then answers batches."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from numpy.typing import ArrayLike
from scipy import sparse

from fsd_inference import kernels
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.memory import peak_rss_bytes
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.serial import run_serial
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError, FsdError, RunError, SettingError
from fsd_inference.network import Network, as_inputs
from fsd_inference.partition import (
    METHODS,
    Manifest,
    Partition,
    cut,
    load_plan,
    read_manifest,
)
from fsd_inference.partition.manifest import MANIFEST_FILE
from fsd_inference.records import Usage
from fsd_inference.report import Report
from fsd_inference.session.collecting import collect
from fsd_inference.session.home import Home, LocalHome
from fsd_inference.session.inference import Inference
from fsd_inference.session.memory_need import estimate_mb
from fsd_inference.session.progress import Progress, Silent, task
from fsd_inference.session.pushing import DEFAULT_METHOD, pushed_plan, upload
from fsd_inference.session.reporting import run_report

if TYPE_CHECKING:
    from fsd_inference.records import StackSpec

CHANNELS = ("serial", "memory", "queue", "object")


class Session:
    """A network, ready to answer batches.

    Parameters
    ----------
    network : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    channel : {"serial", "memory", "queue", "object"}
        How: in one process, or over P workers that exchange activations over local sockets, SNS+SQS or S3. On a stack
        with functions the workers (for "serial": the one worker) are those, otherwise processes of this machine.
    workers : int, optional
        P; 1 if not given, or what the directory was partitioned for.
    partition : str, optional
        Partitioner, for a network that is not partitioned yet: "graph" (used if not given) is quick; "hypergraph" may
        take minutes to save a few more rows, which pays where a network is cut once and used often.
    seed : int
        Of the partitioner.
    branching, micro_batches, threads, overlap, output, clocks
        See `RunSettings`.
    attempts : int
        How often a run is tried in all, where trying again can help.
    stack : path, optional
        The ``stack.json`` of the resources to use; without it, "queue" and "object" start an emulated stack of their
        own on this machine and take it down again. On a stack with functions the network must have been pushed.
    memory_mb : int, optional
        Size of the worker functions to use; the smallest that an estimate finds large enough if not given.
    synchronous : bool
        Hold one connection to the coordinator function until the run has ended, instead of asking how far it is.
    delay_s : float
        Latency added on the way of every frame: emulators have none.
    progress : Progress, optional
        Is told how far the session is.

    Raises
    ------
    InputError
        A setting makes no sense, or a file cannot be read.
    """

    def __init__(
        self,
        network: Network | str | os.PathLike[str],
        *,
        channel: str = "serial",
        workers: int | None = None,
        partition: str | None = None,
        seed: int = 0,
        branching: int = 4,
        micro_batches: int = 1,
        threads: int = 1,
        overlap: bool = True,
        output: str = "rows",
        clocks: Clocks | None = None,
        attempts: int = 2,
        stack: str | os.PathLike[str] | None = None,
        memory_mb: int | None = None,
        synchronous: bool = False,
        delay_s: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        _check(channel, workers, partition, attempts, delay_s)
        self._deployed = _functions_of(stack, channel)
        if self._deployed is None and (memory_mb is not None or synchronous):
            raise SettingError("memory_mb and synchronous are for stacks with functions")
        if self._deployed is not None and (threads != 1 or delay_s > 0):
            raise SettingError(
                f"stack {self._deployed.name} has functions, whose threads follow from their memory and whose frames "
                "are not delayed: give memory_mb instead of threads and delay_s"
            )
        self._memory_mb, self._synchronous = memory_mb, synchronous
        self._channel = channel
        self._method, self._seed = partition, seed
        self._attempts = attempts
        self._stack = None if stack is None else Path(stack)
        self._delay_s = delay_s
        self._progress = progress or Silent()
        self._source = network
        self._network: Network | None = None
        self._folder: Path | None = None  # of shards
        self._own_folder = False
        self._home: Home | None = None
        self._manifest: Manifest | None = None
        self._partition: Partition | None = None
        self._uploaded = False
        self._kernels: list[kernels.LayerKernel] | None = None
        self._report: Report | None = None
        if isinstance(network, Network):
            self._network = network
        elif (Path(network) / MANIFEST_FILE).exists():
            self._folder = Path(network)
            self._manifest = read_manifest(network)
            if channel == "serial" and self._deployed is None:
                raise SettingError(f"{network} holds shards; channel 'serial' takes the network itself")
            if workers not in {None, self._manifest.workers}:
                raise SettingError(
                    f"{network} was partitioned for {self._manifest.workers} workers, not {workers}; partition it again"
                )
            workers = self._manifest.workers
        else:
            self._network = Network.load(network)
        self._settings = RunSettings(
            workers=1 if workers is None else workers,
            branching=branching,
            micro_batches=micro_batches,
            threads=threads,
            overlap=overlap,
            output=output,
            clocks=clocks or Clocks(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def features(self) -> int:
        """What a sample must have."""
        if self._manifest is not None:
            return self._manifest.features
        assert self._network is not None  # noqa: S101 - one of the two is there
        return self._network.widths[0]

    def infer(self, x: ArrayLike | sparse.sparray | sparse.spmatrix) -> Inference:
        """Answer a batch.

        Parameters
        ----------
        x : array or sparse matrix, samples x features
            Finite numbers; converted to float32.

        Raises
        ------
        InputError
            The batch is not one for this network.
        RunError
            The run ended without an answer; says where, and whether trying again can help.
        """
        self._report = None
        batch = as_inputs(x, self.features)
        if self._is_alone:
            return self._infer_serial(batch)
        return self._infer_distributed(batch)

    def prepare(self) -> None:
        """Partition the network and upload its shards, if that is still to be done; `infer` does it too.

        On a stack with functions, look for what was pushed.
        """
        if self._is_alone:
            self._layer_kernels()
        else:
            self._prepared()

    def close(self) -> None:
        """Remove what the session made for itself."""
        home, self._home = self._home, None
        if home is not None:
            home.close()
        if self._own_folder and self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder, self._own_folder = None, False

    @property
    def report(self) -> Report | None:
        """Figures of the last run, one that failed too if any of its ranks could be heard; None before the first."""
        return self._report

    @property
    def _is_alone(self) -> bool:
        """Whether this process does it all."""
        return self._channel == "serial" and self._deployed is None

    # --- serial ------------------------------------------------------------------------------------------------------

    def _layer_kernels(self) -> list[kernels.LayerKernel]:
        if self._kernels is None:
            assert self._network is not None  # noqa: S101 - checked at the start
            with task(self._progress, "load", len(self._network)):
                self._kernels = []
                for layer in self._network:
                    self._kernels.append(kernels.LayerKernel(*layer.kernel_arrays()))
                    self._progress.advance("load", len(self._kernels))
        return self._kernels

    def _infer_serial(self, batch: sparse.csr_array) -> Inference:
        started = time.perf_counter()
        layers = self._layer_kernels()
        load_s = time.perf_counter() - started
        run = run_serial(layers, batch, threads=self._settings.threads, output=self._settings.output)
        self._report = Report(
            channel="serial",
            workers=1,
            samples=batch.shape[0],
            layers=len(layers),
            connections=run.connections,
            wall_s=time.perf_counter() - started,
            launch_s=0.0,
            load_s=load_s + run.load_s,
            compute_s=run.compute_s,
            peak_rss_bytes=peak_rss_bytes(),
            row_sends=0,
            usage=Usage(),
            attempts=1,
            simd=kernels.simd_path(),
        )
        values, argmax = run.summary or (None, None)
        return Inference(run.rows, values, argmax, self._report)

    # --- distributed -------------------------------------------------------------------------------------------------

    def _prepared(self) -> tuple[Home, Manifest, Partition]:
        if self._deployed is None and self._folder is None:
            self._cut()
        if self._home is None:
            self._home = self._open_home()
        if self._manifest is None or self._partition is None or not self._uploaded:
            if self._deployed is not None:
                self._manifest, self._partition = self._find(self._home)
            else:
                assert self._folder is not None  # noqa: S101 - cut
                self._manifest = read_manifest(self._folder)
                self._partition, _ = load_plan(self._folder)
                upload(self._home.plans, self._folder, self._manifest, self._progress)
            self._uploaded = True
        return self._home, self._manifest, self._partition

    def _cut(self) -> None:
        assert self._network is not None  # noqa: S101 - a folder otherwise
        self._folder, self._own_folder = Path(tempfile.mkdtemp(prefix="fsd-shards-")), True
        method = self._method or DEFAULT_METHOD
        with task(self._progress, "partition"):
            cut(self._network, self._folder, workers=self._settings.workers, method=method, seed=self._seed)

    def _open_home(self) -> Home:
        if self._channel == "memory":
            return LocalHome(self._delay_s)
        # boto3 takes a third of a second to import, which sessions without AWS need not wait for.
        from fsd_inference.aws.home import AwsHome  # noqa: PLC0415
        from fsd_inference.aws.lambda_home import LambdaHome  # noqa: PLC0415

        with task(self._progress, "stack"):
            if self._deployed is None:
                return AwsHome(self._channel, self._stack, self._settings.workers, self._delay_s)
            return LambdaHome(
                self._channel,
                self._deployed,
                self._settings,
                need_mb=self._need_mb,
                memory_mb=self._memory_mb,
                synchronous=self._synchronous,
            )

    def _find(self, home: Home) -> tuple[Manifest, Partition]:
        """Return what was pushed of the network."""
        if self._folder is not None:
            return pushed_plan(home.plans, self._manifest or read_manifest(self._folder), self._push_command())
        assert self._network is not None  # noqa: S101 - a folder otherwise
        return pushed_plan(
            home.plans,
            (self._network.digest, self._settings.workers),
            self._push_command(),
            method=None if self._settings.workers == 1 else self._method,
        )

    def _push_command(self) -> str:
        """Return what pushes this session's network."""
        method, workers = self._method, self._settings.workers
        if isinstance(self._source, Network):
            more = "" if method is None else f", partition={method!r}"
            return f"fsd_inference.push(network, stack={str(self._stack)!r}, workers={workers}{more})"
        command = ["fsd", "push", str(self._source), "--stack", str(self._stack)]
        if self._folder is None:
            command += ["--workers", str(workers)]
            command += [] if method is None else ["--partition", method]
        return shlex.join(command)

    def _need_mb(self, spec: RunSpec) -> float:
        assert self._manifest is not None  # noqa: S101 - there is a plan before there is a run
        return estimate_mb(self._manifest, spec)

    def _infer_distributed(self, batch: sparse.csr_array) -> Inference:
        home, manifest, partition = self._prepared()
        started, before = time.time(), home.usage()
        sizes = micro_batch_sizes(batch.shape[0], self._settings.micro_batches)
        spec = RunSpec(
            run=uuid.uuid4().hex,
            attempt=0,
            plan=manifest.plan_digest.hex(),
            samples=batch.shape[0],
            features=batch.shape[1],
            deadline=0.0,
            settings=self._settings,
        )
        ends: list[Ended] = []
        failure: RunError | None = None
        rows, summary = None, None
        try:
            home.runs.put(spec.input_key, encode_input(batch, sizes))
            spec = self._attempts_until_answer(home, spec, manifest.layers, ends)
            try:
                rows, summary = collect(home, spec, sizes, manifest, partition)
            except FileFormatError as error:  # not a file of the user's
                raise RunError(f"collecting the results: {error}", operation="collect", retryable=True) from error
        except RunError as error:
            failure = error
        finally:
            wall_s = time.time() - started
            with suppress(FsdError):  # what is left expires, and must not hide how the run ended
                home.forget(spec.run)
        if ends:
            usage = home.usage() - before
            self._report = run_report(self._channel, manifest, spec, ends, wall_s=wall_s, usage=usage, error=failure)
        if failure is not None:
            raise failure
        assert self._report is not None  # noqa: S101 - an answer is the end of an attempt
        values, argmax = summary or (None, None)
        return Inference(rows, values, argmax, self._report)

    def _attempts_until_answer(self, home: Home, spec: RunSpec, layers: int, ends: list[Ended]) -> RunSpec:
        """Return the attempt that brought the answer; how each one ended is added to `ends`."""
        while True:
            try:
                with task(self._progress, "infer", layers):
                    ends.append(home.attempt(spec, lambda done: self._progress.advance("infer", done)))
                if ends[-1].error is None:
                    return spec
                raise ends[-1].error
            except RunError as error:
                if not error.retryable or spec.attempt + 1 >= self._attempts:
                    raise
                spec = replace(spec, attempt=spec.attempt + 1)


def _check(channel: str, workers: int | None, partition: str | None, attempts: int, delay_s: float) -> None:
    if channel not in CHANNELS:
        raise SettingError(f"channel must be one of {', '.join(CHANNELS)}, not {channel!r}")
    if partition is not None and partition not in METHODS:
        raise SettingError(f"partition must be one of {', '.join(METHODS)}, not {partition!r}")
    if attempts < 1:
        raise SettingError(f"attempts must be at least 1, not {attempts}")
    if delay_s < 0:
        raise SettingError(f"delay_s must not be negative, but is {delay_s}")
    if channel == "serial" and workers not in {None, 1}:
        raise SettingError(f"channel 'serial' runs in one process: it takes no {workers} workers")


def _functions_of(path: str | os.PathLike[str] | None, channel: str) -> StackSpec | None:
    """Return the stack if its functions are to carry out the runs."""
    if path is None:
        return None
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415 - who uses no stack need not read one

    stack = load_stack(Path(path))
    if channel == "memory":
        raise SettingError("a stack serves the channels serial, queue and object, not 'memory'")
    if channel == "serial" and stack.functions is None:
        raise SettingError(f"stack {stack.name} has no functions, so it serves the channels queue and object alone")
    return None if stack.functions is None else stack
