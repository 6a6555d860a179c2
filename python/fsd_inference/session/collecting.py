"""Assembly of the answer to a batch from the result objects of the ranks."""

from __future__ import annotations

import os

from fsd_inference.engine.gather import Summary, decode
from fsd_inference.engine.output_forms import OutputForm, Rows
from fsd_inference.engine.results import joined_outputs
from fsd_inference.engine.serial import state_rows
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError
from fsd_inference.partitioning import Manifest, Partition
from fsd_inference.session.executor import Executor


def collect(
    executor: Executor,
    spec: RunSpec,
    sizes: tuple[int, ...],
    manifest: Manifest,
    partition: Partition,
    form: OutputForm | None,
) -> tuple[Rows | None, Summary | None]:
    """Return the output rows, or the summary of each sample if the run's output is "argmax" or "any".

    Parameters
    ----------
    executor : Executor
        Reads the result objects.
    spec : RunSpec
        The attempt whose results are collected.
    sizes : tuple of int
        Samples of each micro-batch.
    manifest, partition
        Description and partition of the network that was run.
    form : {"csr", "dense"}, optional
        The form of output rows; None lets `is_dense` choose.

    Returns
    -------
    rows : csr_array or ndarray of float32, samples x outputs, or None
    summary : (values, neurons) or None
        Exactly one of the two is given.

    Raises
    ------
    FileFormatError
        A result is missing or damaged.
    """
    if spec.settings.output != "rows":
        data = _result(executor, spec, 0)
        try:
            return None, decode(data, spec.samples)
        except ValueError as error:
            raise FileFormatError(f"{spec.result_key(0)}: {error}") from error
    results = (
        (_result(executor, spec, rank), partition.rows(manifest.layers - 1, rank))
        for rank in range(spec.settings.workers)
    )
    return state_rows(joined_outputs(results, sizes, manifest.widths[-1], os.cpu_count() or 1), form), None


def _result(executor: Executor, spec: RunSpec, rank: int) -> bytes:
    data = executor.result(spec, rank)
    if data is None:
        raise FileFormatError(f"{spec.result_key(rank)} is missing from the store although the run succeeded")
    return data
