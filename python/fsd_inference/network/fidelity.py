"""How closely the outputs of a network agree with those of the model that it was imported from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fsd_inference.errors import InputError

TOLERANCE = 1e-4
TOLERANCE_IN_16_BITS = 5e-2
_WORST = 5


@dataclass(frozen=True, slots=True)
class Check:
    """The comparison of a network with a model on a batch.

    Attributes
    ----------
    against : str
        The model and what ran it.
    samples : int
        Number of samples.
    largest : float
        Largest absolute difference of an output.
    mean : float
        Mean absolute difference.
    same_argmax : float
        Share of the samples whose largest output is the same; if the network selects outputs, whose selection is.
    scale : float
        Largest absolute output of the model.
    tolerance : float
        The difference that is allowed, relative to `scale`, or absolute where that is below 1.
    worst : tuple of (int, float)
        The samples with the largest differences, and these.
    parts_at : str or None
        The first layer whose outputs differ by more than is allowed, and the operator of the model that it computes;
        None if there is none, or it is not known.
    """

    against: str
    samples: int
    largest: float
    mean: float
    same_argmax: float
    scale: float
    tolerance: float
    worst: tuple[tuple[int, float], ...] = ()
    parts_at: str | None = None

    @property
    def bound(self) -> float:
        """Largest difference that is allowed."""
        return self.tolerance * max(1.0, self.scale)

    @property
    def agrees(self) -> bool:
        """Whether no output differs by more than the bound."""
        return self.largest <= self.bound

    def __str__(self) -> str:
        verdict = "agrees with" if self.agrees else "DIFFERS from"
        return (
            f"{verdict} {self.against} on {self.samples:,} {'sample' if self.samples == 1 else 'samples'}: largest "
            f"difference {self.largest:.2g} (at most {self.bound:.2g}), mean {self.mean:.2g}, same largest output for "
            f"{self.same_argmax:.1%}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return its form in JSON files."""
        return {**asdict(self), "worst": [list(pair) for pair in self.worst]}

    @classmethod
    def from_json(cls, value: object) -> Check:
        """Return the check that `to_json` described.

        Raises
        ------
        InputError
            If there is none.
        """
        kinds: dict[str, tuple[type, ...]] = {
            "against": (str,), "samples": (int,), "worst": (list,), "parts_at": (str, type(None))
        }  # fmt: skip
        names = [field.name for field in fields(cls)]
        if not isinstance(value, dict) or value.keys() != set(names):
            raise InputError("a check is an object with " + ", ".join(names))
        worst = value["worst"]
        fits = all(isinstance(value[name], kinds.get(name, (int, float))) for name in names) and all(
            isinstance(pair, list) and [type(number) for number in pair] in ([int, float], [int, int]) for pair in worst
        )
        if not fits:
            raise InputError("a field of a check is of a wrong type")
        return cls(**{**value, "worst": tuple((sample, float(difference)) for sample, difference in worst)})


def compared(
    ours: NDArray[Any], theirs: NDArray[Any], against: str, tolerance: float, *, same: NDArray[np.bool_] | None = None
) -> Check:
    """Return the comparison of two arrays of outputs.

    Parameters
    ----------
    ours, theirs : ndarray, shape (samples, outputs)
        The outputs of the network and of the model.
    against : str
        The model, for messages.
    tolerance : float
        See `Check`.
    same : ndarray of bool, shape (samples,), optional
        Whether the same outputs are selected; by default, whether the same one is the largest.

    Raises
    ------
    InputError
        If the shapes differ, or an output of the model is not finite.
    """
    if ours.shape != theirs.shape:
        raise InputError(
            f"the network has {ours.shape[1]:,} outputs, but {against} returns {theirs.shape[1]:,} per sample: it is "
            "another model"
        )
    finite = np.isfinite(theirs).all(axis=1)
    if not finite.all():
        raise InputError(f"{against} returns a value that is not finite for sample {int(np.argmin(finite))} (from 0)")
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    of_samples = difference.max(axis=1)
    order: Sequence[int] = np.argsort(-of_samples, kind="stable")[:_WORST].tolist()
    if same is None:
        same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    return Check(
        against=against,
        samples=len(ours),
        largest=float(of_samples.max()),
        mean=float(difference.mean()),
        same_argmax=float(same.mean()),
        scale=float(np.abs(theirs).max()),
        tolerance=tolerance,
        worst=tuple((sample, float(of_samples[sample])) for sample in order if of_samples[sample] > 0),
    )
