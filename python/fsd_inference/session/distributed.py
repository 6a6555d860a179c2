"""Inference by ranks in other processes or Lambda functions: attempts, retries, answers and reports."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.config import FailurePolicy, RunSettings
from fsd_inference.deadlines import cleaning_up, within
from fsd_inference.engine.checkpoints import RESUME, newest_checkpoint
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.gather import Summary
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.output_forms import OutputForm, Rows
from fsd_inference.engine.overtaking import MOST_RESTARTS
from fsd_inference.engine.serial import serial_state
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import (
    AbortedError,
    DeadlineError,
    FileFormatError,
    FsdError,
    HandedOnError,
    RunError,
    SettingError,
    StragglerError,
    client_operation,
)
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.kernels import SerialState
from fsd_inference.logs import Logger
from fsd_inference.network import Network
from fsd_inference.prediction import Prediction
from fsd_inference.progress import Progress, task
from fsd_inference.report import Report
from fsd_inference.session.collecting import collect
from fsd_inference.session.executor import Executor
from fsd_inference.session.inference import Inference
from fsd_inference.session.platforms import Platform
from fsd_inference.session.reporting import run_report
from fsd_inference.session.sharded_network import StoredPlan
from fsd_inference.session.slices import CombinedProgress, concatenated, of_replica, side_by_side, slices

if TYPE_CHECKING:
    from fsd_inference.forecast.predicting import Carried

_log = Logger(__name__)

_MOST_FORESEEN = 4096
"""Maximum number of layers whose times are foreseen: the events that start ranks carry them."""


@dataclass(slots=True)
class _Run:
    """State of one run: its latest attempt, the outcome of each attempt, and its answer or final error."""

    spec: RunSpec
    form: OutputForm | None
    has_input: bool = False
    ends: list[Ended] = field(default_factory=list)
    failed: int = 0  # attempts that count against those allowed
    restarts: int = 0  # attempts that ended because of a straggler
    rows: Rows | None = None
    summary: Summary | None = None
    failure: RunError | None = None
    ended: float = 0.0


class Distributed:
    """The engine of all sessions with ranks: runs each batch on an executor, as one run or as one per replica.

    Parameters
    ----------
    channel : str
    settings : RunSettings
    platform : Platform
        Where the workers run.
    replicas : int
        Number of slices of a batch, each of which is a run of its own.
    failures : FailurePolicy
        What else than the settings it says of attempts: how many a run may have, and whether a prediction chooses how
        often a run stores checkpoints.
    progress : Progress
    """

    report: Report | None = None

    def __init__(
        self,
        channel: str,
        settings: RunSettings,
        platform: Platform,
        *,
        replicas: int,
        failures: FailurePolicy,
        progress: Progress,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._platform = platform
        self._replicas = replicas
        self._failures = failures
        self._progress = progress
        # One batch at a time: batches share the executor's usage meter and the session's progress.
        self._busy = threading.Lock()
        self._executor: Executor | None = None
        self._stored: StoredPlan | None = None
        self._is_warm = False  # set after the first run: warm functions keep their loaded shards for a while

    def prepare(self) -> None:
        """Open the executor and deploy the shards, if that is still to be done."""
        with self._busy:
            self._prepared()

    def predict(self, network: Network, batch: sparse.csr_array, known: Payloads | None) -> Prediction:
        """Predict the requests and the time of the runs of a batch; see `Session.predict`."""
        from fsd_inference.forecast.predicting import (  # noqa: PLC0415 - few runs are predicted
            choose_checkpoints,
            payloads_of,
            predict_runs,
        )

        with self._busy:
            executor, stored = self._prepared()
        sizes = [part.stop - part.start for part in slices(batch.shape[0], self._replicas)]
        settings = self._settings
        if self._chooses:
            carried, parts = self._carried(executor, stored, settings, sizes[0]), settings.micro_batches
            known = payloads_of(network, stored.plan, batch, known, parts, settings.wire)
            every = choose_checkpoints(network, carried, known.scaled(max(sizes), parts), len(sizes))
            settings = self._chosen(every)
        return predict_runs(network, self._carried(executor, stored, settings, sizes[0]), batch, sizes, known)

    @property
    def _chooses(self) -> bool:
        return self._failures.checkpoint_every == "auto"

    def _chosen(self, every: int) -> RunSettings:
        """Return the settings of a run for which this number of layers between checkpoints was chosen."""
        restarts = every > 0 and self._failures.restart_stragglers
        return replace(self._settings, checkpoint_every=every, restart_stragglers=restarts)

    def _carried(self, executor: Executor, stored: StoredPlan, settings: RunSettings, samples: int) -> Carried:
        from fsd_inference.forecast.predicting import Carried  # noqa: PLC0415 - few runs need it

        return Carried(
            partition=stored.partition,
            plan=stored.plan,
            channel=self._channel,
            settings=settings,
            stack=executor.stack,
            memory_mb=executor.memory_mb(self._spec(stored, settings, samples)),
            is_warm=self._is_warm,
        )

    def _foreseen(
        self, executor: Executor, stored: StoredPlan, spec: RunSpec, predicted: Prediction | None
    ) -> tuple[float, ...]:
        """Return the times by which ranks on functions notice that they are slow; processes tell all their paces."""
        inputs = stored.manifest.widths[:-1]
        if self._settings.workers == 1 or executor.memory_mb(spec) is None or len(inputs) > _MOST_FORESEEN:
            return ()
        from fsd_inference.forecast.predicting import foreseen_connection_s  # noqa: PLC0415 - for functions only

        sizes = micro_batch_sizes(spec.samples, self._settings.micro_batches)
        live = predicted.live if predicted is not None and len(predicted.live) == len(inputs) - 1 else ()
        carried = self._carried(executor, stored, spec.settings, spec.samples)
        return foreseen_connection_s(carried, inputs, sizes, live)

    def infer(
        self,
        batch: sparse.csr_array | NDArray[np.float32],
        predicted: Prediction | None = None,
        *,
        form: OutputForm | None = "csr",
    ) -> Inference:
        """Run a batch, once batches of other threads have ended, and return outputs in a form; see `Session.infer`."""
        loaded = serial_state(batch, os.cpu_count() or 1)
        with self._busy:
            return self._infer(loaded, predicted, form)

    def _infer(self, batch: SerialState, predicted: Prediction | None, form: OutputForm | None) -> Inference:
        self.report = None
        executor, stored = self._prepared()
        began, before = time.perf_counter(), executor.usage()
        if self._settings.verify:
            batch.keep_digests(0)
        parts, settings = slices(batch.samples, self._replicas), self._settings
        if self._chooses and predicted is not None:
            settings = self._chosen(predicted.checkpoint_every)
        specs = [self._spec(stored, settings, part.stop - part.start, part.start) for part in parts]
        foreseen = self._foreseen(executor, stored, specs[0], predicted)
        runs = [_Run(replace(spec, connection_s=foreseen), form) for spec in specs]
        self._run_all(executor, stored, batch, runs)
        failure = _first_failure(runs, parts)
        if any(run.ends for run in runs):
            self._is_warm = True
            self.report = run_report(
                self._channel,
                stored.manifest,
                [(run.spec, run.ends) for run in runs],
                wall_s=max(run.ended for run in runs) - began,
                usage=executor.usage() - before,
                error=failure,
                predicted=predicted,
                batch_digest=next(iter(batch.digests()), None),
            )
        if failure is not None:
            raise failure
        assert self.report is not None  # noqa: S101 - without a failure each run had an attempt
        rows, summary = concatenated([(run.rows, run.summary) for run in runs], form)
        values, argmax = summary or (None, None)
        return Inference(rows, values, argmax, self.report)

    def _run_all(
        self,
        executor: Executor,
        stored: StoredPlan,
        batch: SerialState,
        runs: list[_Run],
    ) -> None:
        """Carry out the runs, each of a part of the batch, in parallel; each holds its own failure then, if any."""
        combined = CombinedProgress(self._progress, "infer", len(runs))

        def carry_out(number: int) -> None:
            self._carry_out(executor, stored, runs, number, batch, combined)

        def stop() -> None:
            for run in runs:  # keeps replicas that are between attempts from starting another
                run.failure = AbortedError("the caller was interrupted", operation="run")
            with cleaning_up():
                for run in runs:
                    _forget(executor, run.spec.run)

        with task(self._progress, "infer", stored.manifest.layers * len(runs)):
            side_by_side(carry_out, len(runs), stop)

    def close(self) -> None:
        """Close the executor."""
        executor, self._executor, self._stored = self._executor, None, None
        if executor is not None:
            executor.close()

    def _prepared(self) -> tuple[Executor, StoredPlan]:
        if self._executor is None:
            self._executor = self._platform.open()
        if self._stored is None:
            stored = self._platform.deploy(self._executor)
            self._check_publishing(self._executor, stored)
            self._stored = stored
        return self._executor, self._stored

    def _check_publishing(self, executor: Executor, stored: StoredPlan) -> None:
        """Raise `SettingError` if the account's publishing quota lets no run of the plan succeed."""
        quota = None if executor.stack is None else executor.stack.publish_per_s
        if self._channel != "queue" or quota is None:
            return
        from fsd_inference.forecast.publishing import plan_problem  # noqa: PLC0415 - for queues on AWS only

        problem = plan_problem(stored.plan, self._settings.micro_batches, quota, self._settings.clocks)
        if problem is not None:
            raise SettingError(
                f"{self._settings.workers} workers cannot run over queues: {problem}; use fewer workers, channel "
                "object, or ask AWS for a higher quota and set publish_quota of the stack"
            )

    @staticmethod
    def _spec(stored: StoredPlan, settings: RunSettings, samples: int, first_sample: int = 0) -> RunSpec:
        return RunSpec(
            run=uuid.uuid4().hex,
            attempt=0,
            plan=stored.manifest.plan_digest.hex(),
            samples=samples,
            features=stored.manifest.features,
            deadline=0.0,
            settings=settings,
            first_sample=first_sample,
        )

    def _carry_out(
        self,
        executor: Executor,
        stored: StoredPlan,
        runs: list[_Run],
        number: int,
        batch: SerialState,
        combined: CombinedProgress,
    ) -> None:
        """Carry out one run: make attempts until one has an answer; record an error as its failure."""
        run = runs[number]
        try:
            self._attempts_until_answer(executor, stored, runs, number, batch, combined)
        except RunError as error:
            run.failure = error
        finally:
            run.ended = time.perf_counter()
            with cleaning_up():
                _forget(executor, run.spec.run)

    def _attempts_until_answer(
        self,
        executor: Executor,
        stored: StoredPlan,
        runs: list[_Run],
        number: int,
        batch: SerialState,
        combined: CombinedProgress,
    ) -> None:
        """Make attempts until one succeeds or no retry is left, but not after another replica has failed for good."""
        run = runs[number]
        while run.failure is None:
            try:
                return self._attempt(executor, stored, run, batch, lambda done: combined.advance(number, done))
            except RunError as error:
                if not error.retryable or any(other.failure is not None for other in runs):
                    raise
                may_not_count = isinstance(error, HandedOnError) or error.operation == RESUME
                if not may_not_count and run.failed + 1 >= self._failures.attempts:
                    raise
                resume_at = self._newest_checkpoint(executor, run.spec)
                # There are no more such attempts than checkpoints: one that cannot be used is gone by now.
                is_unusable = error.operation == RESUME and resume_at < run.spec.resume_at
                is_overtaken = isinstance(error, StragglerError)  # which happens a few times at most
                goes_on = is_overtaken or (isinstance(error, HandedOnError) and resume_at > run.spec.resume_at)
                run.failed += not (is_unusable or goes_on)
                run.restarts += is_overtaken
                if run.failed >= self._failures.attempts:
                    raise
                if goes_on:
                    run.spec = self._going_on(run)
                _log.of(run=run.spec.run).warning(
                    "attempt %d failed and is retried from layer %d: %s", run.spec.attempt, resume_at, error
                )
                run.spec = replace(run.spec, attempt=run.spec.attempt + 1, resume_at=resume_at)
                combined.advance(number, resume_at)
        raise run.failure

    def _going_on(self, run: _Run) -> RunSpec:
        """Return the run with what is left of its run clock, and of its restarts because of stragglers."""
        clocks = run.spec.settings.clocks
        left_s = clocks.run_s - (time.time() - run.ends[-1].launched)
        if left_s <= 0:
            whole_s = self._settings.clocks.run_s
            raise DeadlineError(
                f"the run did not end by its deadline ({whole_s:g} s); allow more time", operation="run"
            )
        may_restart = run.spec.settings.restart_stragglers and run.restarts < MOST_RESTARTS
        settings = replace(run.spec.settings, clocks=replace(clocks, run_s=left_s), restart_stragglers=may_restart)
        return replace(run.spec, settings=settings)

    def _newest_checkpoint(self, executor: Executor, spec: RunSpec) -> int:
        """Return the layer at which another attempt starts; the first if the checkpoints cannot be listed."""
        if not spec.settings.checkpoint_every:
            return 0
        try:
            with within(self._settings.clocks.stall_s):  # a store that is silent for longer has the next attempt fail
                return newest_checkpoint(executor.runs, spec)
        except FsdError as error:
            _log.of(run=spec.run).warning("checkpoints of the run could not be listed, so none is used: %s", error)
            return 0

    def _attempt(
        self,
        executor: Executor,
        stored: StoredPlan,
        run: _Run,
        batch: SerialState,
        on_layer: Callable[[float], None],
    ) -> None:
        """Make one attempt: upload the input if that is still to be done, have the ranks run, collect the answer.

        The uploading and the collecting may each take as long as the run itself.
        """
        sizes = micro_batch_sizes(run.spec.samples, self._settings.micro_batches)
        longest_s = self._settings.clocks.run_s
        if not run.has_input:
            with within(longest_s), client_operation("upload", "uploading the input"):
                executor.runs.put(run.spec.input_key, encode_input(batch, sizes, run.spec.first_sample))
            run.has_input = True
        with client_operation("run", "carrying out the attempt"):
            run.ends.append(executor.attempt(run.spec, on_layer))
        error = run.ends[-1].error
        if error is not None:
            raise error
        on_layer(stored.manifest.layers)
        try:
            with within(longest_s), client_operation("collect", "collecting the results"):
                run.rows, run.summary = collect(executor, run.spec, sizes, stored.manifest, stored.partition, run.form)
        except FileFormatError as error:  # not a file of the user, so not an input error
            raise RunError(f"collecting the results: {error}", operation="collect", retryable=True) from error


def _forget(executor: Executor, run: str) -> None:
    """Delete the objects of a run; a failure must not hide how the run ended."""
    try:
        executor.forget(run)
    except FsdError as error:
        _log.of(run=run).warning("objects of the run were not deleted, and expire: %s", error)


def _first_failure(runs: Sequence[_Run], parts: Sequence[slice]) -> RunError | None:
    """Return the error of the failed run that ended earliest; None if all runs succeeded."""
    failed = [(run.ended, number, run.failure) for number, run in enumerate(runs) if run.failure is not None]
    if not failed:
        return None
    _, number, failure = min(failed, key=lambda each: each[0])
    return of_replica(failure, number, parts)
