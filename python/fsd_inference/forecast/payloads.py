"""Predicted sizes of the packed rows that ranks exchange."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.errors import SettingError
from fsd_inference.partitioning.plan import ExchangePlan


@dataclass(frozen=True, slots=True)
class Payloads:
    """Predicted sizes of what a plan's edges carry.

    Attributes
    ----------
    samples : tuple of int
        Number of samples in each micro-batch.
    exchanges : tuple of ndarray of float64, edges x micro-batches
        Bytes of the packed rows of each edge, in the order of the plan's exchanges.
    input_bytes : float
        Size of the input object.
    live : tuple of float
        Fraction of samples with any nonzero activation, after each layer but the last.
    density : tuple of float
        Fraction of activations that are nonzero, after each layer but the last.
    """

    samples: tuple[int, ...]
    exchanges: tuple[NDArray[np.float64], ...]
    input_bytes: float
    live: tuple[float, ...]
    density: tuple[float, ...]

    def scaled(self, samples: int, micro_batches: int = 1) -> Payloads:
        """Return the payloads of a batch with other numbers of samples and micro-batches, scaled in proportion.

        Small batches pack into a few more bytes per sample than that, but fewer than the frames' headers have.
        """
        before, sizes = sum(self.samples), micro_batch_sizes(samples, micro_batches)
        shares = np.array(sizes) / before
        exchanges = tuple(np.outer(exchange.sum(axis=1), shares) for exchange in self.exchanges)
        return replace(self, samples=sizes, exchanges=exchanges, input_bytes=self.input_bytes * samples / before)

    def fits(self, plan: ExchangePlan) -> bool:
        """Whether there is a size for each edge of the plan."""
        return [len(edges) for edges in plan.exchanges] == [len(sizes) for sizes in self.exchanges]

    def check(self, plan: ExchangePlan) -> None:
        """Raise SettingError if these are the payloads of another plan."""
        if not self.fits(plan):
            raise SettingError("the payload sizes were predicted for another plan: predict them for this one")


def dense_payloads(
    plan: ExchangePlan, *, samples: int, micro_batches: int = 1, features: int = 0, live: float = 1.0
) -> Payloads:
    """Return the payloads of unknown inputs, assumed dense: 4 bytes for each row and live sample.

    Parameters
    ----------
    plan : ExchangePlan
    samples, micro_batches : int
        Number of samples and of micro-batches of the run.
    features : int
        Number of input features, all sent; 0 leaves the input out.
    live : float
        Fraction of samples that are live (have a nonzero activation) after every layer.

    Raises
    ------
    SettingError
        `samples` is below 1, or `live` is not in 0 to 1.
    """
    if samples < 1 or not 0 <= live <= 1:
        raise SettingError(f"a run needs at least 1 sample and a live share of 0 to 1, not {samples} and {live:g}")
    sizes = micro_batch_sizes(samples, micro_batches)
    a_row = 4.0 * live * np.array(sizes)
    exchanges = tuple(
        np.outer(np.array([edge.rows.size for edge in exchange], np.float64), a_row) for exchange in plan.exchanges
    )
    shares = (live,) * len(exchanges)
    return Payloads(sizes, exchanges, 4.0 * features * samples, shares, shares)
