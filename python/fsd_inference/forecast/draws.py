"""Seeded random draws of service latencies."""

from __future__ import annotations

import numpy as np

from fsd_inference.forecast.timing import LATENCIES, Timing

_BLOCK = 1024
"""Number of latencies drawn at a time, which is faster than one by one."""


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
        """Return a random latency in seconds; `name` is one of `LATENCIES`."""
        drawn = self._drawn[name]
        if not drawn:
            drawn += self._block(name, _BLOCK)
        return drawn.pop()

    def latencies(self, name: str, count: int) -> list[float]:
        """Return `count` random latencies in seconds; `name` is one of `LATENCIES`."""
        drawn = self._drawn[name]
        if len(drawn) < count:
            drawn += self._block(name, count + _BLOCK)
        some = drawn[-count:] if count else []
        del drawn[len(drawn) - count :]
        return some

    def uniform(self) -> float:
        """Return a uniform random number from 0 (included) to 1 (excluded)."""
        return float(self._random.random())

    def _block(self, name: str, count: int) -> list[float]:
        latency = self._latencies[name]
        if latency.median_s <= 0:
            return [0.0] * count
        some: list[float] = (latency.median_s * np.exp(latency.sigma * self._random.standard_normal(count))).tolist()
        return some
