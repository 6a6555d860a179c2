"""Seeded random draws of service latencies."""

from __future__ import annotations

import numpy as np

from fsd_inference.forecast.timing import LATENCIES, Timing

_BLOCK = 1024
"""Latencies that are drawn together, which is quicker than one by one."""


class Draws:
    """A seeded source of random latencies.

    Parameters
    ----------
    timing : Timing
        Medians and 99th percentiles of the lognormal distributions.
    seed : int
        Equal seeds give equal draws.
    """

    def __init__(self, timing: Timing, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._latencies = {name: timing.latency(name) for name in LATENCIES}
        self._drawn: dict[str, list[float]] = {name: [] for name in LATENCIES}

    def latency(self, name: str) -> float:
        """Return a draw in seconds of one of `LATENCIES`."""
        drawn = self._drawn[name]
        if not drawn:
            drawn += self._block(name, _BLOCK)
        return drawn.pop()

    def latencies(self, name: str, count: int) -> list[float]:
        """Return `count` draws in seconds of one of `LATENCIES`."""
        drawn = self._drawn[name]
        if len(drawn) < count:
            drawn += self._block(name, count + _BLOCK)
        some = drawn[-count:] if count else []
        del drawn[len(drawn) - count :]
        return some

    def uniform(self) -> float:
        """Return a draw from 0 to 1."""
        return float(self._random.random())

    def _block(self, name: str, count: int) -> list[float]:
        latency = self._latencies[name]
        if latency.median_s <= 0:
            return [0.0] * count
        some: list[float] = (latency.median_s * np.exp(latency.sigma * self._random.standard_normal(count))).tolist()
        return some
