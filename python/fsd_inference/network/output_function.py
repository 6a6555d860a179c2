"""The function that is applied to the scores of each sample, which are the outputs of a network's last layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from fsd_inference.errors import InputError
from fsd_inference.network.checks import shown, whole_number
from fsd_inference.network.elementary import exp, log
from fsd_inference.network.sparse_arrays import BLOCK_ENTRIES

OutputKind = Literal["softmax", "log_softmax", "argmax", "top_k"]
OUTPUT_KINDS: tuple[OutputKind, ...] = get_args(OutputKind)


@dataclass(frozen=True, slots=True)
class OutputFunction:
    """A function over all scores of a sample, computed where the results of a run are gathered.

    It is not a layer: scores, and the digest of the network, are the same with and without it.

    Attributes
    ----------
    kind : {"softmax", "log_softmax", "argmax", "top_k"}
        "softmax" and "log_softmax" replace the scores by probabilities or their logarithms; "argmax" and "top_k" add
        the one or k outputs with the largest scores, the lowest index first among equal scores.
    k : int, optional
        Number of outputs of "top_k", which needs it; None for the other kinds.

    Raises
    ------
    InputError
        If the kind is unknown, or k is missing, not a positive whole number, or given for another kind.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> layer = fsd.Layer([[2.0], [1.0], [3.0]], 0, "identity")
    >>> network = fsd.Network([layer], output=fsd.OutputFunction("top_k", 2))
    >>> with fsd.Session(network) as session:
    ...     session.infer([[1.0], [-1.0]]).top
    array([[2, 0],
           [1, 0]])
    """

    kind: OutputKind
    k: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in OUTPUT_KINDS:
            raise InputError(f"an output function is one of {', '.join(OUTPUT_KINDS)}, not {shown(self.kind)}")
        if self.kind != "top_k":
            if self.k is not None:
                raise InputError(f"the output function {self.kind} takes no k, but {shown(self.k)} is given")
        elif self.k is None:
            raise InputError('top_k needs its number of outputs, such as OutputFunction("top_k", 5)')
        else:
            object.__setattr__(self, "k", whole_number(self.k, "the k of top_k"))
            if self.k < 1:
                raise InputError(f"the k of top_k must be at least 1, not {self.k}")

    @property
    def selects(self) -> bool:
        """Whether it selects outputs and leaves the scores as they are; otherwise it replaces the scores."""
        return self.kind in {"argmax", "top_k"}

    def check(self, outputs: int) -> None:
        """Raise InputError if it needs more outputs than there are."""
        if self.k is not None and self.k > outputs:
            raise InputError(f"the network has {outputs} outputs, fewer than the {self.k} of its output function top_k")

    def transformed(self, scores: sparse.csr_array | NDArray[np.float32]) -> sparse.csr_array:
        """Return the softmax or its logarithm for each sample, as float32 CSR without stored zeros.

        The largest score is subtracted first, which is exact in float64 for scores that are close. Exponentials are
        added in float64 in ascending order of outputs; each result is rounded once. Logarithms that are too low
        for float32 become its lowest number.
        """
        parts = []
        for block in _blocks(scores):
            below = block.astype(np.float64) - block.max(axis=1, keepdims=True)
            powers = exp(below)
            total = np.add.accumulate(powers, axis=1)[:, -1:]  # unlike sum, adds one by one
            result = powers / total if self.kind == "softmax" else below - log(total)
            parts.append(sparse.csr_array(np.maximum(result, np.finfo(np.float32).min).astype(np.float32)))
        return sparse.csr_array(sparse.vstack(parts, format="csr"))

    def top(self, scores: sparse.csr_array | NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return indices and values of the outputs with the largest scores, in descending order.

        Returns
        -------
        indices : ndarray of int64, shape (samples, k)
            k is 1 for "argmax".
        values : ndarray of float32, shape (samples, k)
        """
        indices, values = [], []
        for block in _blocks(scores):
            order = np.argsort(-block, axis=1, kind="stable")[:, : self.k or 1]
            indices.append(order)
            values.append(np.take_along_axis(block, order, axis=1))
        return np.concatenate(indices), np.concatenate(values)

    def __str__(self) -> str:
        return self.kind if self.k is None else f"{self.kind} of {self.k}"

    def to_json(self) -> dict[str, Any]:
        """Return its form in JSON files."""
        return {"kind": self.kind} if self.k is None else {"kind": self.kind, "k": self.k}

    @classmethod
    def from_json(cls, value: object) -> OutputFunction:
        """Return the function that `to_json` described.

        Raises
        ------
        InputError
            If there is no such function.
        """
        if not isinstance(value, dict) or not {"kind"} <= value.keys() <= {"kind", "k"}:
            raise InputError(f"an output function is an object with 'kind' and perhaps 'k', not {shown(value)}")
        return cls(**value)


def checked_output(output: object, outputs: int) -> OutputFunction | None:
    """Return the output function of a network with a number of outputs.

    Raises
    ------
    InputError
        If it is neither an OutputFunction nor None, or needs more outputs.
    """
    if output is None:
        return None
    if not isinstance(output, OutputFunction):
        raise InputError(
            f'the output function of a network must be an OutputFunction, such as OutputFunction("softmax"), '
            f"not {shown(output)}"
        )
    output.check(outputs)
    return output


def _blocks(scores: sparse.csr_array | NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Yield dense blocks of samples, which limits the memory for intermediate arrays."""
    step = max(1, BLOCK_ENTRIES // scores.shape[1])
    for start in range(0, scores.shape[0], step):
        block = scores[start : start + step]
        yield block if isinstance(block, np.ndarray) else block.toarray()
