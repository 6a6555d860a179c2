"""The attempts of a predicted run, and the checkpoints from which all but the first start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.checkpoints import checkpoint_layers


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt of a run.

    Attributes
    ----------
    first : int
        The layer at which it starts: that of a checkpoint, or 0.
    reached : int
        Number of layers that the ranks had computed when it ended; all in the last attempt.
    run_s : float
        Seconds from the start of rank 0 to its end.
    """

    first: int
    reached: int
    run_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Course:
    """The attempts of a run, of which all but the last hand it on, and its checkpoints.

    Attributes
    ----------
    layers : int
        Number of layers of the network.
    every : int
        Number of layers between checkpoints; 0 for none.
    attempts : tuple of Attempt
    """

    layers: int
    every: int
    attempts: tuple[Attempt, ...]

    @classmethod
    def whole(cls, layers: int, every: int = 0, run_s: float = 0.0) -> Course:
        """Return the course of a run that is not handed on."""
        return cls(layers, every, (Attempt(0, layers, run_s),))

    @property
    def checkpoints(self) -> int:
        """Number of checkpoints that each rank stores."""
        return sum(
            layer <= attempt.reached
            for attempt in self.attempts
            for layer in checkpoint_layers(self.every, self.layers, attempt.first)
        )

    def sends(self) -> NDArray[np.int64]:
        """Return how often ranks send their rows after each layer but the last: lost layers are repeated.

        An attempt that starts at a checkpoint first sends the rows of the layer before it once more.
        """
        found = np.zeros(self.layers - 1, np.int64)
        for attempt in self.attempts:
            found[max(0, attempt.first - 1) : attempt.reached] += 1
        return found

    def weights(self, weights: Sequence[float]) -> list[float]:
        """Return the number of exchanges that each layer of a sample represents, repeated ones included.

        Parameters
        ----------
        weights : sequence of float
            Number of layers that each layer of the sample represents (`Thinned.weights`).
        """
        ends = np.cumsum([0.0, *weights[:-1]])
        sent = np.concatenate([[0.0], np.cumsum(self.sends(), dtype=np.float64)])
        represented: list[float] = np.diff(np.interp(ends, np.arange(self.layers), sent)).tolist()
        return represented
