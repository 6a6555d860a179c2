"""Whether an attempt ends because of a straggler, so that another one overtakes it from a checkpoint."""

from __future__ import annotations

from fsd_inference.engine.checkpoints import newest_checkpoint
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import StragglerError
from fsd_inference.store.base import Store
from fsd_inference.stragglers import Lag

MOST_RESTARTS = 3
"""Maximum number of attempts of a run that end because of a straggler: the next one may be slow as well."""
_GAIN = 2.0
"""Factor by which another attempt must shorten the rest of the run, which is an estimate."""


def straggler_error(lag: Lag, spec: RunSpec, store: Store, start_s: float) -> StragglerError | None:
    """Return the error that ends an attempt with a straggler; None if another attempt would save too little.

    Parameters
    ----------
    lag : Lag
        What the straggler is at.
    spec : RunSpec
        The attempt.
    store : Store
        The store with the run's checkpoints, which are listed.
    start_s : float
        Seconds that another attempt takes to start.
    """
    at = newest_checkpoint(store, spec)
    left_s = (lag.of - lag.layers) * lag.layer_s
    again_s = start_s + (lag.of - at) * lag.layer_s / lag.factor
    if at <= spec.resume_at or left_s < _GAIN * again_s:
        return None
    message = f"{lag.straggler}, so that another attempt goes on from the last checkpoint"
    return StragglerError(message, rank=lag.rank, layer=lag.layers, operation="run")
