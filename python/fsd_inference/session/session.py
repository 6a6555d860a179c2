"""`Session`, the main entry point: prepares a network once, then runs inference on batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from numpy.typing import ArrayLike
from scipy import sparse

from fsd_inference import logs
from fsd_inference.channel_names import CHANNELS, MODELLED, current_name, modelled_only, renamed
from fsd_inference.config import FailurePolicy, FunctionSettings, RunSettings, Tuning, check_count
from fsd_inference.engine.output_forms import OutputForm
from fsd_inference.errors import SettingError
from fsd_inference.network import Network, as_batch, as_inputs, load_parts
from fsd_inference.partitioning import METHODS
from fsd_inference.progress import Progress, Silent
from fsd_inference.report import Report
from fsd_inference.session.alone import Alone
from fsd_inference.session.distributed import Distributed
from fsd_inference.session.fitting import check_network
from fsd_inference.session.inference import Inference
from fsd_inference.session.platforms import FunctionPlatform, Platform, ProcessPlatform
from fsd_inference.session.sharded_network import ShardedNetwork
from fsd_inference.streams import open_descriptors

if TYPE_CHECKING:
    from fsd_inference.forecast.payloads import Payloads
    from fsd_inference.prediction import Prediction
    from fsd_inference.stack_description import StackSpec


class Session:
    """A network that is ready for inference on batches.

    Sessions are thread-safe: several threads may call `infer`, `predict` and `prepare`. The network is prepared once;
    batches that need ranks run one at a time. Call `close` after all other calls have returned. `report` is that of the
    run that ended last.

    Parameters
    ----------
    network : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    channel : {"serial", "local", "queue", "object"}
        Where activations travel: nowhere (one worker has the whole network), or between P workers over local sockets,
        SNS and SQS, or S3. The workers are Lambda functions if the stack has functions, otherwise local processes.
    workers : int, optional
        Number of workers P; defaults to the number that the directory was partitioned for, otherwise to 1.
    replicas : int
        Copies of the one worker of "serial", each of which computes a slice of the batch of nearly equal size. They are
        threads of this process that share the network, or functions of a stack, where each slice is a run of its own
        that is retried on its own. There are never more replicas than samples.
    stack : path, optional
        The ``stack.json`` of the resources to use. Without it, "queue" and "object" start an emulated stack on this
        machine and take it down in `close`. To a stack with functions the network must have been pushed.
    partition : str, optional
        Partitioner of a network that is not partitioned yet: "graph" (the default) is quick; "hypergraph" may take
        minutes to save a few more row transfers, which pays off if a network is partitioned once and used often.
    output : {"rows", "argmax", "any"}
        All output activations ("rows"), to which the output function of the network is applied; or only the largest
        output of each sample and its neuron, without the output function.
    wire : {"float32", "bfloat16", "float16"}
        Number format of the activations that workers send to each other. The 16-bit formats send fewer bytes, but the
        answer is no longer that of a serial run bit for bit: each value that is sent is rounded to the nearest one of
        the format, with a relative error of at most 2**-8 (bfloat16) or 2**-11 (float16; below 2**-14 an absolute error
        of at most 2**-25). Above the range of the format, 65,504 for float16, the run fails.
    verify : bool
        Whether to compute a digest of each layer's outputs, which the report of a run then has. It is the same for any
        channel, workers, partition, replicas and `tuning`, so that runs can be compared (`fsd diff`).
    tuning : Tuning, optional
        How the workers divide their work.
    functions : FunctionSettings, optional
        For a stack with functions: which functions to use and how to call them.
    failures : FailurePolicy, optional
        Timeouts of a run, and the number of attempts.
    memory_limit_mb : int, optional
        For "serial" in this process: its maximum memory in MB (2**20 bytes). A network that exceeds it is not kept, but
        read from its files again for each batch, ahead of the computation.
    progress : Progress, optional
        Receives the progress of the session.

    Raises
    ------
    InputError
        A setting is invalid, or a file cannot be read.
    ResourceLimitError
        A stored network does not fit into the memory that is left, and no memory limit is given.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> samples = [[1.0] * 64, [0.0] * 64]
    >>> with fsd.Session(network, channel="local", workers=2) as session:
    ...     answer = session.infer(samples)
    >>> answer.outputs.shape
    (2, 32)
    >>> answer.report.workers
    2
    """

    def __init__(
        self,
        network: Network | str | os.PathLike[str],
        *,
        channel: str = "serial",
        workers: int | None = None,
        replicas: int = 1,
        stack: str | os.PathLike[str] | None = None,
        partition: str | None = None,
        output: str = "rows",
        wire: str = "float32",
        verify: bool = False,
        tuning: Tuning | None = None,
        functions: FunctionSettings | None = None,
        failures: FailurePolicy | None = None,
        memory_limit_mb: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        open_descriptors()
        if channel != current_name(channel):
            warnings.warn(renamed(channel), FutureWarning, stacklevel=2)
            channel = current_name(channel)
        _check(channel, workers, partition, replicas)
        if memory_limit_mb is not None:
            check_count("memory_limit_mb", memory_limit_mb)
        logs.start()
        tuning, functions, failures = tuning or Tuning(), functions or FunctionSettings(), failures or FailurePolicy()
        described = _functions_of(stack, channel, tuning, functions)
        self._network = ShardedNetwork(network, workers, partition)
        settings = RunSettings(
            **asdict(tuning),
            workers=self._network.workers,
            output=output,
            wire=wire,
            verify=verify,
            clocks=failures.clocks,
            checkpoint_every=0 if failures.checkpoint_every == "auto" else failures.checkpoint_every,
            restart_stragglers=failures.checkpoint_every != "auto" and failures.restart_stragglers,
        )
        progress = progress or Silent()
        self._chooses = False
        self._engine: Alone | Distributed
        if channel == "serial" and described is None:
            if settings.checkpoint_every:
                raise SettingError("checkpoints are for workers that are processes or functions: leave them out")
            if self._network.network is None:
                raise SettingError(
                    f"{network} holds shards, but channel 'serial' needs the network itself; give its path"
                )
            limit = None if memory_limit_mb is None else memory_limit_mb * 2**20
            if limit is None and not isinstance(network, Network):
                check_network(self._network.network)
            self._engine = Alone(self._network.network, settings, replicas, progress, limit)
            return
        if memory_limit_mb is not None:
            raise SettingError("a memory limit applies only to channel 'serial' without functions; leave it out")
        self._chooses = failures.checkpoint_every == "auto"
        if self._chooses and self._network.network is None:
            raise SettingError(
                f"{network} holds shards, but checkpoint_every 'auto' predicts each run, which needs the network "
                "itself: give its path, or a number of layers"
            )
        platform: Platform
        path = None if stack is None else Path(stack)
        if described is None or path is None:
            platform = ProcessPlatform(channel, self._network, stack=path and path.absolute(), progress=progress)
        else:
            platform = FunctionPlatform(
                channel, self._network, settings,
                stack=path, described=described, replicas=replicas, functions=functions, progress=progress,
            )  # fmt: skip
        self._engine = Distributed(
            channel, settings, platform,
            replicas=replicas, failures=failures, progress=progress,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def features(self) -> int:
        """Number of features of a sample."""
        return self._network.features

    def predict(
        self, x: ArrayLike | sparse.sparray | sparse.spmatrix, *, known: Payloads | None = None
    ) -> Prediction | None:
        """Predict requests, bytes and time of inference on a batch, without running it.

        This takes seconds: a part of the batch is computed through the network. The prediction holds for this session:
        if its ranks are local processes or functions of an emulator, it predicts those, not AWS.

        Parameters
        ----------
        x : array or sparse matrix, samples x features
        known : Payloads, optional
            Sizes of the plan's exchanges for some number of samples, if they are already known.

        Returns
        -------
        Prediction or None
            Pass it to `infer` to have it compared in the report; None if the session was given shards, because a
            prediction needs the network.
        """
        if self._network.network is None:
            return None
        return self._engine.predict(self._network.network, as_inputs(x, self.features), known)

    def infer(
        self,
        x: ArrayLike | sparse.sparray | sparse.spmatrix,
        *,
        predicted: Prediction | None = None,
        scores: bool = False,
        outputs: OutputForm | None = None,
    ) -> Inference:
        """Run inference on a batch.

        Parameters
        ----------
        x : array or sparse matrix, samples x features
            Finite numbers; converted to float32. A float32 array is read where it is: do not change it meanwhile.
        predicted : Prediction, optional
            The result of `predict` for this batch, to be shown in the report. With checkpoints as often as costs least
            (`FailurePolicy`), the run has those of this prediction; it is made if it is not passed.
        scores : bool
            Whether to leave out the network's output function, and return the scores that it is applied to.
        outputs : {"csr", "dense"}, optional
            Whether `Inference.outputs` is a csr_array or an ndarray. By default it is a csr_array for a sparse `x`; for
            a dense one it is an ndarray if more than a tenth of the outputs is non-zero, otherwise a csr_array.

        Raises
        ------
        InputError
            The batch does not fit the network.
        RunError
            The run failed; names rank, layer and operation, and whether a retry can help.
        """
        if outputs not in {None, "csr", "dense"}:
            raise SettingError(f"outputs must be csr or dense, not {outputs!r}")
        if self._chooses and predicted is None:
            predicted = self.predict(x)
        form: OutputForm | None = "csr" if outputs is None and sparse.issparse(x) else outputs
        answer = self._engine.infer(as_batch(x, self.features), predicted, form=form)
        return answer if scores else answer.applied(self._network.output, form)

    def infer_parts(
        self,
        parts: str | os.PathLike[str] | Iterable[ArrayLike | sparse.sparray | sparse.spmatrix],
        *,
        outputs: OutputForm | None = None,
    ) -> Iterator[Inference]:
        """Run inference on one part of a batch after the other, so that the batch may be larger than memory.

        Parameters
        ----------
        parts : path or iterable of arrays or sparse matrices, samples x features
            A directory of input files, or parts that are taken when the answer to the part before has been used.
        outputs : {"csr", "dense"}, optional
            As of `infer`, for each part; files are read as sparse matrices.

        Yields
        ------
        Inference
            The answer to each part, with the report of its run; do not keep all of them.

        Raises
        ------
        InputError
            A part does not fit the network, or a file cannot be read.
        RunError
            A run failed; the answers before it are given.
        """
        if isinstance(parts, str | os.PathLike):
            parts = (samples for _, samples in load_parts(parts, self.features))
        for part in parts:
            yield self.infer(part, outputs=outputs)

    def prepare(self) -> None:
        """Partition the network and upload its shards, unless that is done already; `infer` calls this too.

        On a stack with functions, look up the plan that was pushed instead.
        """
        self._engine.prepare()

    def close(self) -> None:
        """Release the network and remove temporary folders and an emulated stack of this session."""
        self._engine.close()
        self._network.close()

    @property
    def report(self) -> Report | None:
        """Report of the last run, also of a failed one if any rank reported; None before the first run."""
        return self._engine.report


def _check(channel: str, workers: int | None, partition: str | None, replicas: int) -> None:
    if channel in MODELLED:
        raise SettingError(modelled_only(channel))
    if channel not in CHANNELS:
        raise SettingError(f"channel must be one of {', '.join(CHANNELS)}, not {channel!r}")
    if partition is not None and partition not in METHODS:
        raise SettingError(f"partition must be one of {', '.join(METHODS)}, not {partition!r}")
    if replicas < 1:
        raise SettingError(f"replicas must be at least 1, not {replicas}")
    if replicas > 1 and (channel != "serial" or workers not in {None, 1}):
        given = f"channel {channel!r}" if channel != "serial" else f"{workers} workers"
        raise SettingError(
            f"replicas are copies of one worker that has the whole network: {replicas} of them cannot be combined "
            f"with {given}"
        )
    if channel == "serial" and workers not in {None, 1}:
        raise SettingError(f"channel 'serial' runs in one process: it cannot use {workers} workers")


def _functions_of(
    path: str | os.PathLike[str] | None, channel: str, tuning: Tuning, functions: FunctionSettings
) -> StackSpec | None:
    """Return the description of the stack if it has functions to run on, otherwise None; reject invalid settings."""
    stack = None if path is None else _load(Path(path), channel)
    if stack is None or stack.functions is None:
        if functions != FunctionSettings():
            raise SettingError("memory_mb and synchronous apply only to stacks with functions; leave them out")
        return None
    if tuning.threads != 1:
        raise SettingError(
            f"stack {stack.name} has functions, whose threads follow from their memory: set memory_mb, not threads"
        )
    return stack


def _load(path: Path, channel: str) -> StackSpec:
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415 - needed with a stack only

    stack = load_stack(path)
    if channel == "local":
        raise SettingError("a stack serves the channels serial, queue and object, not 'local'")
    if channel == "serial" and stack.functions is None:
        raise SettingError(f"stack {stack.name} has no functions, so it serves only the channels queue and object")
    return stack
