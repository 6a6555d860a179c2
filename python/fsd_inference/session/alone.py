"""Inference in the calling process: the serial engine, and replicas of it in threads that share the network."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference import kernels
from fsd_inference.config import RunSettings
from fsd_inference.digests import Digests, added
from fsd_inference.engine.memory import peak_rss_bytes
from fsd_inference.engine.output_forms import OutputForm
from fsd_inference.engine.reporting import rank_report
from fsd_inference.engine.serial import SerialRun, run_serial, serial_state
from fsd_inference.engine.streaming import MOST_LAYERS, layers_at_once, stream_layers
from fsd_inference.errors import AbortedError, RunError, SettingError
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.network import Network
from fsd_inference.prediction import Prediction
from fsd_inference.progress import Progress, task
from fsd_inference.rank_report import Interval, RankReport
from fsd_inference.report import Report
from fsd_inference.session.inference import Inference
from fsd_inference.session.slices import concatenated, of_replica, side_by_side, slices
from fsd_inference.usage import Usage


class Alone:
    """The engine behind channel "serial" without a stack: runs batches in the calling process.

    Parameters
    ----------
    network : Network
    settings : RunSettings
        Kernel threads per replica, and the kind of output.
    replicas : int
        Number of slices of a batch that are computed in parallel.
    progress : Progress
    memory_limit : int, optional
        Maximum memory of the process in bytes. A network that exceeds it is read again for each batch, layer by layer,
        while the batch is computed.
    """

    report: Report | None = None

    def __init__(
        self,
        network: Network,
        settings: RunSettings,
        replicas: int,
        progress: Progress,
        memory_limit: int | None = None,
    ) -> None:
        self._network = network
        self._settings = settings
        self._replicas = replicas
        self._progress = progress
        self._memory_limit = memory_limit
        self._kernels: list[kernels.LayerKernel] | None = None
        self._loading = threading.Lock()

    @property
    def features(self) -> int:
        """Number of features of a sample."""
        return self._network.widths[0]

    def prepare(self) -> None:
        """Load the network, unless its size is limited: then the first batch shows whether it fits in memory."""
        if self._memory_limit is None:
            self._layers()

    def predict(self, network: Network, batch: sparse.csr_array, known: Payloads | None) -> Prediction:  # noqa: ARG002
        """Predict how long a batch will take; see `Session.predict`. `known` is ignored: nothing is exchanged."""
        from fsd_inference.forecast.predicting import predict_alone  # noqa: PLC0415 - few runs are predicted

        sizes = [part.stop - part.start for part in slices(batch.shape[0], self._replicas)]
        return predict_alone(network, self._settings, batch, sizes, is_loaded=self._kernels is not None)

    def infer(
        self,
        batch: sparse.csr_array | NDArray[np.float32],
        predicted: Prediction | None = None,
        *,
        form: OutputForm | None = "csr",
    ) -> Inference:
        """Run a batch, which may be dense, and return outputs in a form; see `Session.infer` and `is_dense`."""
        self.report = None
        began = time.perf_counter()
        at_once = self._at_once(batch)
        layers = self._layers() if at_once is None else None
        load_s = time.perf_counter() - began
        parts, stopped = slices(batch.shape[0], self._replicas), threading.Event()
        threads = self._settings.threads
        pieces = [batch] if len(parts) == 1 else [batch[part] for part in parts]
        states = [
            serial_state(piece, threads, first_sample=part.start) for piece, part in zip(pieces, parts, strict=True)
        ]
        if self._settings.verify:
            for state, part in zip(states, parts, strict=True):
                state.keep_digests(part.start)

        def carry_out(number: int) -> tuple[SerialRun, RankReport | None]:
            started = time.time()
            source = stream_layers(self._network, at_once or 1) if layers is None else iter(layers)
            try:
                run = run_serial(
                    _interruptible(stopped, source),
                    states[number],
                    output=self._settings.output,
                    form=form,
                    at_once=at_once or MOST_LAYERS,
                )
            except RunError as error:
                raise of_replica(error, number, parts) from error
            digests = states[number].digests()[1:]
            return run, _report(number, len(parts), started, run, digests) if len(parts) > 1 else None

        done = side_by_side(carry_out, len(parts), stopped.set)
        rows, summary = concatenated([(run.rows, run.summary) for run, _ in done], form)
        report = Report(
            channel="serial",
            workers=1,
            replicas=len(parts),
            samples=batch.shape[0],
            layers=len(self._network),
            connections=done[0][0].connections,
            wall_s=time.perf_counter() - began,
            launch_s=0.0,
            load_s=load_s + max(run.load_s for run, _ in done),
            compute_s=max(run.compute_s for run, _ in done),
            peak_rss_bytes=peak_rss_bytes(),
            row_sends=0,
            usage=Usage(),
            attempts=1,
            simd=kernels.simd_path(),
            predicted=predicted,
            ranks=[report for _, report in done if report is not None],
            digests=self._digests([state.digests() for state in states]) if self._settings.verify else None,
        )
        self.report = report
        values, argmax = summary or (None, None)
        return Inference(rows, values, argmax, report)

    def _digests(self, parts: list[list[int]]) -> Digests:
        """Return the digests of a batch and of its layers, from those of all slices."""
        batch, *layers = added(parts)
        return Digests(self._network.digest.hex(), None, batch, tuple(layers))

    def close(self) -> None:
        """Release the loaded network."""
        self._kernels = None

    def _at_once(self, batch: sparse.csr_array | NDArray[np.float32]) -> int | None:
        """Return how many layers to hold at once, or None if all of them fit within the memory limit."""
        if self._memory_limit is None:
            return None
        samples, replicas = batch.shape[0], min(self._replicas, batch.shape[0])
        arrays = [batch] if isinstance(batch, np.ndarray) else [batch.data, batch.indices, batch.indptr]
        size = sum(array.nbytes for array in arrays)
        at_once = layers_at_once(self._network, samples, size, self._memory_limit)
        if at_once is not None and replicas > 1:
            raise SettingError(
                "the network exceeds the memory limit, so that each replica would read it by itself; use one replica "
                "and more threads"
            )
        if at_once is not None:
            self.close()  # a smaller batch may have left room for the network
        return at_once

    def _layers(self) -> list[kernels.LayerKernel]:
        with self._loading:  # load once, whichever thread asks first
            if self._kernels is None:
                with task(self._progress, "load", len(self._network)):
                    found = []
                    for layer in self._network:
                        found.append(kernels.LayerKernel(*layer.kernel_arrays()))
                        self._progress.advance("load", len(found))
                self._kernels = found
            return self._kernels


def _interruptible(stopped: threading.Event, layers: Iterable[kernels.LayerKernel]) -> Iterator[kernels.LayerKernel]:
    """Yield the layers to a replica.

    Raises
    ------
    AbortedError
        The caller was interrupted, so the replica must stop before its next layer.
    """
    for layer in layers:
        if stopped.is_set():
            raise AbortedError("the caller was interrupted", operation="infer")
        yield layer


def _report(number: int, replicas: int, started: float, run: SerialRun, digests: Sequence[int]) -> RankReport:
    """Return the figures of a replica as a rank report with one interval for all layers."""
    whole = rank_report(
        rank=number,
        starter=None,
        started=started,
        workers=replicas,
        layers=0,
        intervals=[Interval("all", -1, 0, started, time.time())],
        sent=[],
        sent_to={},
        requests=[],
        result_bytes=0,
        error=None,
        digests=digests,
    )
    return replace(whole, compute_s=run.compute_s)
