"""The result of inference on one batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.report import Report


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer to one batch and the report of its run.

    Attributes
    ----------
    outputs : csr_array of float32, samples x outputs, or None
        Output activations without stored zeros; None if the session's output is "argmax" or "any".
    values : ndarray of float32, shape (samples,), or None
        Largest output of each sample; None if the session's output is "rows".
    argmax : ndarray of int32, shape (samples,), or None
        Lowest-numbered neuron with the largest output of each sample; None if the session's output is "rows".
    report : Report
        Figures of the run; `Report.save` writes them as report files.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([8, 4], connections=2)
    >>> with fsd.Session(network) as session:
    ...     answer = session.infer([[0.0] * 8])
    >>> answer.outputs.shape
    (1, 4)
    """

    outputs: sparse.csr_array | None
    values: NDArray[np.float32] | None
    argmax: NDArray[np.int32] | None
    report: Report

    def alive(self) -> NDArray[np.int64]:
        """Return the indices of the samples with any output above 0, in ascending order."""
        if self.outputs is not None:
            positive = self.outputs > 0
            return np.flatnonzero(np.diff(positive.tocsr().indptr))
        assert self.values is not None  # noqa: S101 - one of the two is there
        return np.flatnonzero(self.values > 0)
