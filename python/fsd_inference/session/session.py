"""The session: prepares a network once, then answers batches."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from fsd_inference import kernels
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.gather import Summary, decode
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.memory import peak_rss_bytes
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.results import output_triplets
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
from fsd_inference.records import RunReport, Usage
from fsd_inference.session.attempt import run_attempt
from fsd_inference.session.home import Home, LocalHome
from fsd_inference.session.inference import Inference
from fsd_inference.session.progress import Progress, Silent, task

CHANNELS = ("serial", "memory", "queue", "object")


class Session:
    """A network, ready to answer batches.

    Parameters
    ----------
    network : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    channel : {"serial", "memory", "queue", "object"}
        How: in this process, or over P workers that exchange activations over local sockets, SNS+SQS or S3.
    workers : int, optional
        P; 1 if not given, or what the directory was partitioned for.
    partition : str
        Partitioner, for a network that is not partitioned yet: "graph" is quick; "hypergraph" may take minutes to save
        a few more rows, which pays where a network is cut once and used often.
    seed : int
        Of the partitioner.
    branching, micro_batches, threads, overlap, output, clocks
        See `RunSettings`.
    attempts : int
        How often a run is tried in all, where trying again can help.
    stack : path, optional
        The ``stack.json`` of the resources to use; without it, "queue" and "object" start an emulated stack of their
        own on this machine and take it down again.
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
        partition: str = "graph",
        seed: int = 0,
        branching: int = 4,
        micro_batches: int = 1,
        threads: int = 1,
        overlap: bool = True,
        output: str = "rows",
        clocks: Clocks | None = None,
        attempts: int = 2,
        stack: str | os.PathLike[str] | None = None,
        delay_s: float = 0.0,
        progress: Progress | None = None,
    ) -> None:
        _check(channel, workers, partition, attempts, stack, delay_s)
        self._channel = channel
        self._method, self._seed = partition, seed
        self._attempts = attempts
        self._stack = None if stack is None else Path(stack)
        self._delay_s = delay_s
        self._progress = progress or Silent()
        self._network: Network | None = None
        self._folder: Path | None = None  # of shards
        self._own_folder = False
        self._home: Home | None = None
        self._manifest: Manifest | None = None
        self._partition: Partition | None = None
        self._uploaded = False
        self._kernels: list[kernels.LayerKernel] | None = None
        if isinstance(network, Network):
            self._network = network
        elif (Path(network) / MANIFEST_FILE).exists():
            self._folder = Path(network)
            self._manifest = read_manifest(network)
            if channel == "serial":
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
        batch = as_inputs(x, self.features)
        if self._channel == "serial":
            return self._infer_serial(batch)
        return self._infer_distributed(batch)

    def prepare(self) -> None:
        """Partition the network and upload its shards, if that is still to be done; `infer` does it too."""
        if self._channel == "serial":
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
        report = RunReport(
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
        return Inference(run.rows, values, argmax, report)

    # --- distributed -------------------------------------------------------------------------------------------------

    def _prepared(self) -> tuple[Home, Manifest, Partition]:
        if self._folder is None:
            self._cut()
        assert self._folder is not None  # noqa: S101 - cut
        if self._manifest is None or self._partition is None:
            self._manifest = read_manifest(self._folder)
            self._partition, _ = load_plan(self._folder)
        if self._home is None:
            self._home = self._open_home()
        if not self._uploaded:
            self._upload(self._home, self._folder, self._manifest)
            self._uploaded = True
        return self._home, self._manifest, self._partition

    def _cut(self) -> None:
        assert self._network is not None  # noqa: S101 - a folder otherwise
        self._folder, self._own_folder = Path(tempfile.mkdtemp(prefix="fsd-shards-")), True
        with task(self._progress, "partition"):
            cut(self._network, self._folder, workers=self._settings.workers, method=self._method, seed=self._seed)

    def _open_home(self) -> Home:
        if self._channel == "memory":
            return LocalHome()
        # boto3 takes a third of a second to import, which sessions without AWS need not wait for.
        from fsd_inference.aws.home import AwsHome  # noqa: PLC0415

        with task(self._progress, "stack"):
            return AwsHome(self._channel, self._stack, self._settings.workers)

    def _upload(self, home: Home, folder: Path, manifest: Manifest) -> None:
        prefix = f"plans/{manifest.plan_digest.hex()}/"
        if home.plans.stat(prefix + MANIFEST_FILE) is not None:
            return
        entries = [*manifest.shards, manifest.plan]
        with task(self._progress, "upload", len(entries)):
            for done, entry in enumerate(entries):
                data = (folder / entry.file).read_bytes()
                entry.check(data)  # a damaged shard is the caller's to mend, not a rank's to find
                home.plans.put(prefix + entry.file, data)
                self._progress.advance("upload", done + 1)
            home.plans.put(prefix + MANIFEST_FILE, (folder / MANIFEST_FILE).read_bytes())

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
        try:
            home.runs.put(spec.input_key, encode_input(batch, sizes))
            spec, ended, tried = self._attempts_until_answer(home, spec, manifest.layers)
            try:
                rows, summary = _collect(home, spec, sizes, manifest, partition)
            except FileFormatError as error:  # not a file of the user's
                raise RunError(f"collecting the results: {error}", operation="collect", retryable=True) from error
            wall_s = time.time() - started
        finally:
            with suppress(FsdError):  # what is left expires, and must not hide how the run ended
                home.runs.delete(info.key for info in list(home.runs.list(f"runs/{spec.run}/")))
        report = self._report(manifest, spec, ended, wall_s, home.usage() - before + tried)
        values, argmax = summary or (None, None)
        return Inference(rows, values, argmax, report)

    def _attempts_until_answer(self, home: Home, spec: RunSpec, layers: int) -> tuple[RunSpec, Ended, Usage]:
        """Return the attempt that brought the answer, how it ended, and what the ranks of all attempts asked for."""
        usage = Usage()
        while True:
            try:
                with home.place(spec) as place:
                    # A lane may have been waited for: the run's time begins now.
                    spec = replace(spec, deadline=time.time() + self._settings.clocks.run_s)
                    whole = replace(place, spec=spec, delay_s=self._delay_s)
                    ended = run_attempt(whole, home.runs, layers, self._progress)
                    usage = sum((Usage.from_json(rank["usage"]) for rank in ended.reports), usage)
                    if ended.error is not None:
                        raise ended.error
                    return spec, ended, usage
            except RunError as error:
                if not error.retryable or spec.attempt + 1 >= self._attempts:
                    raise
                spec = replace(spec, attempt=spec.attempt + 1)

    def _report(self, manifest: Manifest, spec: RunSpec, ended: Ended, wall_s: float, usage: Usage) -> RunReport:
        ranks = ended.reports
        return RunReport(
            channel=self._channel,
            workers=manifest.workers,
            samples=spec.samples,
            layers=manifest.layers,
            connections=manifest.connections,
            wall_s=wall_s,
            launch_s=max(rank["started"] for rank in ranks) - ended.launched,
            load_s=max(rank["load_s"] for rank in ranks),
            compute_s=max(rank["compute_s"] for rank in ranks),
            peak_rss_bytes=max(rank["peak_rss_bytes"] for rank in ranks),
            row_sends=manifest.volumes.row_sends,
            usage=usage,
            attempts=spec.attempt + 1,
            simd=kernels.simd_path(),
            ranks=ranks,
        )


def _check(
    channel: str,
    workers: int | None,
    partition: str,
    attempts: int,
    stack: str | os.PathLike[str] | None,
    delay_s: float,
) -> None:
    if channel not in CHANNELS:
        raise SettingError(f"channel must be one of {', '.join(CHANNELS)}, not {channel!r}")
    if partition not in METHODS:
        raise SettingError(f"partition must be one of {', '.join(METHODS)}, not {partition!r}")
    if attempts < 1:
        raise SettingError(f"attempts must be at least 1, not {attempts}")
    if delay_s < 0:
        raise SettingError(f"delay_s must not be negative, but is {delay_s}")
    if stack is not None and channel not in {"queue", "object"}:
        raise SettingError(f"a stack serves the channels queue and object, not {channel!r}")
    if channel == "serial" and workers not in {None, 1}:
        raise SettingError(f"channel 'serial' runs in this process alone: it takes no {workers} workers")


def _collect(
    home: Home, spec: RunSpec, sizes: tuple[int, ...], manifest: Manifest, partition: Partition
) -> tuple[sparse.csr_array | None, Summary | None]:
    """Read what the ranks stored and put it together."""
    if spec.settings.output != "rows":
        data = home.runs.get(spec.result_key(0))
        if data is None:
            raise FileFormatError(f"{spec.result_key(0)} is not in the store although the run ended well")
        try:
            return None, decode(data, spec.samples)
        except ValueError as error:
            raise FileFormatError(f"{spec.result_key(0)}: {error}") from error
    parts = []
    for rank in range(spec.settings.workers):
        data = home.runs.get(spec.result_key(rank))
        if data is None:
            raise FileFormatError(f"{spec.result_key(rank)} is not in the store although the run ended well")
        parts.append(output_triplets(data, sizes, partition.rows(manifest.layers - 1, rank)))
    samples, neurons, values = (np.concatenate([part[i] for part in parts]) for i in range(3))
    shape = (spec.samples, manifest.widths[-1])
    rows: Any = sparse.coo_array((values, (samples, neurons)), shape=shape).tocsr()
    rows.sort_indices()
    return rows, None
