"""The answer to one batch."""

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
        Output activations without stored zeros; None if only a value a sample was asked for.
    values : ndarray of float32, or None
        Per sample its largest output.
    argmax : ndarray of int32, or None
        Per sample the lowest neuron that has it.
    report : Report
        Figures of the run; `Report.save` writes pages of them.

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
        """Return the samples (from 0, ascending) with any output above 0."""
        if self.outputs is not None:
            positive = self.outputs > 0
            return np.flatnonzero(np.diff(positive.tocsr().indptr))
        assert self.values is not None  # noqa: S101 - one of the two is there
        return np.flatnonzero(self.values > 0)
