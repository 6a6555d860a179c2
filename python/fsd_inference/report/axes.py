"""Axis limits and tick values of charts."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ticks(largest: float, most: int = 6) -> list[float]:
    """Return at most `most` + 1 evenly spaced round values from 0 up to `largest`."""
    if not 0 < largest < math.inf:
        return [0.0]
    raw = largest / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.floor(largest / step * (1 + 1e-9)) + 1)]


def figure(value: float) -> str:
    """Format a round value without trailing zeros: ``0.05``, ``20``, ``1,500``."""
    return f"{value:,.10g}"


def axis_end(sums: Sequence[float]) -> float:
    """Return the end of a bar chart's value axis: the largest bar, unless a few outliers would dwarf the others.

    Bars are cut off at 1.3 times the 90th percentile if the largest exceeds 6 times that percentile.
    """
    largest = max(sums, default=0.0)
    usual = sorted(sums)[int(0.9 * len(sums))] if sums else 0.0
    return 1.3 * usual if 0 < 6 * usual < largest else largest
