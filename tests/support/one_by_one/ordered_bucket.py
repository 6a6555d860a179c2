"""A token bucket that is asked in the order of time, so that its level is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class OrderedBucket:
    """A rate limit: tokens added per second, and tokens that a full bucket holds."""

    per_s: float
    burst: float
    _full_at: float = -math.inf  # when the bucket will be full again if nothing more is taken

    def admits(self, now: float, count: float = 1.0) -> bool:
        """Take `count` tokens and return True, or return False if the bucket is empty; `now` must not decrease."""
        level = max(self._full_at, now)
        if level - now > self.burst / self.per_s:
            return False
        self._full_at = level + count / self.per_s
        return True
