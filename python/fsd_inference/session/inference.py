"""The result of inference on one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.engine.output_forms import OutputForm, Rows, in_form
from fsd_inference.markup import facts_table
from fsd_inference.network.output_files import save_labels, save_outputs
from fsd_inference.network.output_function import OutputFunction
from fsd_inference.report import Report


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer to one batch and the report of its run.

    Attributes
    ----------
    outputs : csr_array or ndarray of float32, samples x outputs, or None
        Output activations, or what the network's output function "softmax" or "log_softmax" makes of them, in the form
        that `Session.infer` describes; CSR has no stored zeros. None if the session's output is "argmax" or "any".
    values : ndarray of float32, shape (samples,), or None
        Largest output of each sample; None if the session's output is "rows".
    argmax : ndarray of int32, shape (samples,), or None
        Lowest-numbered neuron with the largest output of each sample; None if the session's output is "rows".
    report : Report
        Figures of the run; `Report.save` writes them as report files.
    top : ndarray of int64, shape (samples, k), or None
        Outputs of each sample with the largest values, in descending order, if the network's output function is
        "argmax" (k is 1) or "top_k", and the session's output is "rows".
    top_values : ndarray of float32, shape (samples, k), or None
        Their values.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([8, 4], connections=2)
    >>> with fsd.Session(network) as session:
    ...     answer = session.infer([[0.0] * 8])
    >>> answer.outputs.shape
    (1, 4)
    """

    outputs: Rows | None
    values: NDArray[np.float32] | None
    argmax: NDArray[np.int32] | None
    report: Report
    top: NDArray[np.int64] | None = None
    top_values: NDArray[np.float32] | None = None

    def applied(self, function: OutputFunction | None, form: OutputForm | None) -> Inference:
        """Return the answer with an output function applied to its outputs, if there are both, in a form."""
        if function is None or self.outputs is None:
            return self
        if not function.selects:
            return replace(self, outputs=in_form(function.transformed(self.outputs), form))
        top, top_values = function.top(self.outputs)
        return replace(self, top=top, top_values=top_values)

    def save(self, path: str | os.PathLike[str], *, suffix: str | None = None) -> int:
        """Write labels, if there are any, or outputs to a file in the format of its suffix; see `save_outputs`.

        Parameters
        ----------
        path : path-like
            File to write; the write is atomic.
        suffix : str, optional
            Format to use instead of the suffix of `path`: .npz, .npy, .csv or .parquet.

        Returns
        -------
        int
            Size of the file in bytes.

        Raises
        ------
        SettingError
            The format is unknown, or its library is not installed.
        InputError, OutputError
            `path` cannot be written.
        """
        labels = self.labels()
        if labels is not None:
            return save_labels(path, labels, suffix=suffix)
        assert self.outputs is not None  # noqa: S101 - there are labels otherwise
        return save_outputs(path, self.outputs, suffix=suffix)

    def labels(self) -> NDArray[np.int32] | None:
        """Return the indices of the largest outputs, one per sample or, shape (samples, k), for "top_k"; else None."""
        if self.top is None:
            return self.argmax
        return (self.top[:, 0] if self.top.shape[1] == 1 else self.top).astype(np.int32)

    def summary(self) -> Sequence[tuple[str, str]]:
        """Return the (name, text) rows that summarize answer and run; the first says what the output is."""
        samples = self.report.samples
        if self.outputs is None:
            output = f"{samples:,} labels"
        elif self.top is not None:
            output = f"{samples:,} samples x {self.top.shape[1]:,} labels"
        else:
            rows = self.outputs
            non_zeros = int(np.count_nonzero(rows)) if isinstance(rows, np.ndarray) else rows.nnz
            output = f"{samples:,} samples x {rows.shape[1]:,} outputs, {non_zeros:,} not zero"
        alive = f"{self.alive().size:,} of {samples:,} samples have an output > 0"
        return [("output", output), ("alive", alive), *self.report.summary()]

    def _repr_html_(self) -> str:
        return facts_table("Inference", self.summary())

    def alive(self) -> NDArray[np.int64]:
        """Return the indices of the samples with any output above 0, in ascending order."""
        if self.outputs is not None:
            positive = sparse.csr_array(self.outputs > 0)
            return np.flatnonzero(np.diff(positive.indptr))
        assert self.values is not None  # noqa: S101 - one of the two is there
        return np.flatnonzero(self.values > 0)
