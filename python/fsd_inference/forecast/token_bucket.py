"""Token buckets: rate limits of requests per second with a burst."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class TokenBucket:
    """A rate limit with a burst, under virtual time.

    Attributes
    ----------
    per_s : float
        Tokens added per second.
    burst : float
        Capacity in tokens.
    """

    per_s: float
    burst: float
    _full_at: float = -math.inf  # when the bucket will be full again if nothing more is taken
    _windows: dict[float, float] = field(default_factory=dict)  # tokens taken by window, see `admits`

    def admits(self, time: float, count: float = 1.0) -> bool:
        """Take `count` tokens and return True, or return False if none is left.

        Times may come in any order: each window of burst / per_s seconds has `burst` tokens.
        """
        windows, window = self._windows, time * self.per_s // self.burst
        admitted = windows.get(window, 0.0)
        if admitted >= self.burst:
            return False
        windows[window] = admitted + count
        return True

    def wait_s(self, now: float) -> float:
        """Reserve one token and return the seconds until it is available."""
        level = max(self._full_at, now)
        self._full_at = level + 1 / self.per_s
        return max(0.0, self._full_at - now - self.burst / self.per_s)
