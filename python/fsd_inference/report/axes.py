"""Where an axis ends, and the round values to mark on it."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ticks(largest: float, most: int = 6) -> list[float]:
    """Return at most `most` + 1 round values from 0, evenly spaced, of which none is above `largest`."""
    if not 0 < largest < math.inf:
        return [0.0]
    raw = largest / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.floor(largest / step * (1 + 1e-9)) + 1)]


def figure(value: float) -> str:
    """Return a round value without more digits than it needs: ``0.05``, ``20``, ``1,500``."""
    return f"{value:,.10g}"


def axis_end(sums: Sequence[float]) -> float:
    """Return where the axis of values ends: above all bars, unless a few would make the others invisible."""
    largest = max(sums, default=0.0)
    usual = sorted(sums)[int(0.9 * len(sums))] if sums else 0.0
    return 1.3 * usual if 0 < 6 * usual < largest else largest
