"""Token buckets: rate limits of requests per second with a burst."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fsd_inference.limits import BATCH_ENTRIES, PUBLISH_BURST_S


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

    def wait_s(self, now: float, count: float = 1.0) -> float:
        """Reserve `count` tokens, at most `burst`, and return the seconds until all of them are available."""
        level = max(self._full_at, now)
        self._full_at = level + count / self.per_s
        return max(0.0, self._full_at - now - self.burst / self.per_s)


def share_of_publishing(quota_per_s: float, workers: int) -> TokenBucket:
    """Return the token bucket by which one of `workers` ranks keeps to its share of an account's publishing quota.

    The ranks do not talk to each other about it, so each has an equal part of the rate and of the burst, but at least a
    whole batch of burst. Other lanes are not reckoned with: a run that is alone, as most are, has the whole quota, and
    what concurrent runs publish beyond it is throttled and retried.

    Parameters
    ----------
    quota_per_s : float
        Messages a second that the account may publish.
    workers : int
        Number of ranks of the run.
    """
    share = quota_per_s / workers
    return TokenBucket(share, max(BATCH_ENTRIES, share * PUBLISH_BURST_S))
