"""Renewal of a short lease by a thread, for as long as the process that holds it lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fsd_inference.aws.hidden_messages import HiddenMessages
from fsd_inference.aws.periodic import Periodic
from fsd_inference.deadlines import within
from fsd_inference.errors import FsdError, LaneError
from fsd_inference.limits import RENEW_S
from fsd_inference.logs import Logger

_log = Logger(__name__)

_AGAIN_S = 1.0  # pause in seconds after a renewal that failed
_STOP_S = 5.0  # seconds before the end of a lease at which its holder stops its ranks


@dataclass(frozen=True, slots=True)
class Lease:
    """A lane held by an attempt.

    Attributes
    ----------
    lane : int
    run, attempt
        The attempt that holds it.
    etag : str
        Version of the lease object, which later changes must match.
    until : float
        Time on the holder's monotonic clock until which the lease lasts by the store's clock, if not longer.
    hidden : HiddenMessages
        Messages of earlier attempts that hide in the lane's queues.
    """

    lane: int
    run: str
    attempt: int
    etag: str
    until: float
    hidden: HiddenMessages = field(default_factory=HiddenMessages)


class Keeper(Periodic):
    """Renews a lease every `RENEW_S` seconds for the duration of a `with` block.

    A holder that cannot renew its lease has to stop its ranks: `lost` says so `_STOP_S` seconds before another run may
    take the lane over.

    Parameters
    ----------
    lease : Lease
    renew : callable
        Renews a lease; raises `LaneError` if another run has taken the lane over.
    clock : callable, optional
        The monotonic clock of `Lease.until`.

    Attributes
    ----------
    lease : Lease
        The lease as last renewed.
    lost : LaneError or None
        Why the lane must not be used any more.
    """

    def __init__(
        self, lease: Lease, renew: Callable[[Lease], Lease], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(f"lane-{lease.lane}", RENEW_S)
        self.lease = lease
        self.lost: LaneError | None = None
        self._renew = renew
        self._clock = clock

    def step(self) -> float | None:
        """Renew the lease once; return the pause before the next renewal in seconds, or None if the lane is lost."""
        lease = self.lease
        must_stop = lease.until - _STOP_S
        try:
            with within(must_stop - self._clock()):
                self.lease = self._renew(lease)
        except LaneError as error:
            self.lost = error
            return None
        except FsdError as error:
            _log.of(run=lease.run).info("the lease of lane %d was not renewed: %s", lease.lane, error)
            if self._clock() + _AGAIN_S >= must_stop:
                self.lost = LaneError(f"the lease of lane {lease.lane} could not be renewed in time: {error}")
                return None
            return _AGAIN_S
        return RENEW_S
