"""A slow rank's function stays busy after its attempt until the ranks of the next one run.

Lambda gives an invocation an environment that is idle, if there is one: the next attempt, started at once, would meet
the slow one again. It is not told which environment to use, nor to end one.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from fsd_inference.deadlines import cleaning_up
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import RunError, StoreError, StragglerError
from fsd_inference.store.base import Store

_LOOK_S = 1.0
_NEXT_S = 20.0
"""Seconds that the next attempt has to start its rank 0, once it may have a lane."""


def stay_busy(store: Store, spec: RunSpec, rank: int, error: RunError, *, lane_s: float, ends: float) -> None:
    """Wait until another attempt runs, if the rank's attempt ended because this rank is slow.

    It waits for rank 0 to claim its place, and then for the last rank, but not for more than half of the start clock:
    the account may lack the concurrency for one more function.

    Parameters
    ----------
    store : Store
        The store of claims.
    spec, rank, error
        The attempt, this rank, and why it ended.
    lane_s : float
        Seconds for which the lane of a failed attempt is not free.
    ends : float
        When the function must have ended, in seconds since the epoch.
    """
    if not isinstance(error, StragglerError) or error.rank != rank:
        return
    following = replace(spec, attempt=spec.attempt + 1)
    if _is_claimed(store, following, 0, min(ends, time.time() + lane_s + _NEXT_S)):
        half_s = spec.settings.clocks.start_s / 2
        _is_claimed(store, following, spec.settings.workers - 1, min(ends, time.time() + half_s))


def _is_claimed(store: Store, spec: RunSpec, rank: int, until: float) -> bool:
    """Wait until a rank has claimed its place, and return whether it has."""
    while time.time() < until:
        with suppress(StoreError), cleaning_up():
            if store.stat(spec.claim_key(rank)) is not None:
                return True
        time.sleep(_LOOK_S)
    return False
