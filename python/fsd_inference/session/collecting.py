"""Assembly of the answer to a batch from the result objects of the ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from fsd_inference.engine.gather import Summary, decode
from fsd_inference.engine.results import output_triplets
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FileFormatError
from fsd_inference.partitioning import Manifest, Partition
from fsd_inference.session.executor import Executor


def collect(
    executor: Executor, spec: RunSpec, sizes: tuple[int, ...], manifest: Manifest, partition: Partition
) -> tuple[sparse.csr_array | None, Summary | None]:
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

    Returns
    -------
    rows : csr_array of float32, samples x outputs, or None
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
    parts = [
        output_triplets(_result(executor, spec, rank), sizes, partition.rows(manifest.layers - 1, rank))
        for rank in range(spec.settings.workers)
    ]
    samples, neurons, values = (np.concatenate([part[i] for part in parts]) for i in range(3))
    shape = (spec.samples, manifest.widths[-1])
    rows: Any = sparse.coo_array((values, (samples, neurons)), shape=shape).tocsr()
    rows.sort_indices()
    return rows, None


def _result(executor: Executor, spec: RunSpec, rank: int) -> bytes:
    data = executor.result(spec, rank)
    if data is None:
        raise FileFormatError(f"{spec.result_key(rank)} is missing from the store although the run succeeded")
    return data
