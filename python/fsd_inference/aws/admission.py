"""Admission of runs: a queue before the concurrency that they share, so that no run starts with half its ranks.

A run takes a worker for each rank and a coordinator. Its ticket is one empty object in S3, whose key says everything:

- *held*: the run has its functions until the ticket is deleted or expires.
- *waits*: the run waits, in order of arrival, and is not executing. Its caller invokes the coordinator again every few
  seconds, which renews the ticket; the place in the queue is lost if that stops.

A coordinator writes its held ticket and then lists all tickets; if they exceed what may run at a time, it takes the
ticket back. Listings are consistent, so that of two runs which do not fit together at least one sees the other. Time is
the newest time of writing in the listing, so that only the store's clock counts.

It deletes tickets that have expired: their coordinators have died.

The tickets are of one stack. What other stacks and functions of the account use is not known: AWS reports it to
CloudWatch only, a minute late. The start clock remains for that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from fsd_inference.aws.concurrency import COORDINATORS, Concurrency
from fsd_inference.errors import SettingError
from fsd_inference.limits import PLACE_S
from fsd_inference.store import Store

ADMISSION_FOLDER = "admission/"

_TICK_S = 1.0  # resolution of the store's times, in seconds
_MARGIN_S = 30.0  # seconds that a run may take to stop after its deadline
_SHARED = 0
_KEY = re.compile(r"(held|waits)-(\d+)-(\d+)-(\d+)-(\d+)-([0-9a-f]{32})-(\d+)")


@dataclass(frozen=True, slots=True)
class Ticket:
    """A run's share of the functions that may run at a time, or its place in the queue for it.

    Attributes
    ----------
    state : {"held", "waits"}
    arrived_ms : int
        When the run arrived, in milliseconds since the epoch on its first coordinator's clock.
    pool : int
        Memory in MB of the worker functions if they have reserved concurrency or run on Managed Instances, otherwise 0:
        they share the account's.
    workers : int
        Number of workers.
    lasts_s : int
        Seconds after its writing at which the ticket expires.
    run, attempt : str, int
    """

    state: str
    arrived_ms: int
    pool: int
    workers: int
    lasts_s: int
    run: str
    attempt: int

    @property
    def key(self) -> str:
        """Key of the object."""
        return (
            f"{ADMISSION_FOLDER}{self.state}-{self.arrived_ms}-{self.pool}-{self.workers}-{self.lasts_s}-"
            f"{self.run}-{self.attempt}"
        )

    @property
    def order(self) -> tuple[int, str]:
        """What waiting runs are sorted by."""
        return self.arrived_ms, self.run


def parse_ticket(key: str) -> Ticket | None:
    """Return the ticket whose object has a key; None if it is not a ticket's."""
    match = _KEY.fullmatch(key.removeprefix(ADMISSION_FOLDER))
    if match is None:
        return None
    arrived_ms, pool, workers, lasts_s = map(int, match.groups()[1:5])
    return Ticket(match[1], arrived_ms, pool, workers, lasts_s, match[6], int(match[7]))


class Admission:
    """The queue of a stack's runs, as objects in a store.

    Parameters
    ----------
    store : Store
        The stack's first run bucket.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def enter(
        self,
        run: str,
        attempt: int,
        workers: int,
        limits: Concurrency,
        *,
        deadline_s: float,
        now: float,
        queued_since: float | None,
    ) -> Ticket | None:
        """Admit a run, or let it take or keep a place in the queue.

        Parameters
        ----------
        run, attempt, workers
            The run.
        limits : Concurrency
            What may run at a time.
        deadline_s : float
            The run ends within this many seconds.
        now : float
            The current time, in seconds since the epoch.
        queued_since : float or None
            The time at which the run was first told to wait; None if it has not been.

        Returns
        -------
        Ticket or None
            The ticket, to be passed to `leave` when the run has ended; None if the run must wait.

        Raises
        ------
        SettingError
            The run can never be admitted.
        """
        if limits.runs(workers) < 1:
            raise SettingError(limits.refusal(workers))
        arrived_ms = round(1000 * (now if queued_since is None else min(queued_since, now)))
        pool = _SHARED if limits.reserved is None else limits.memory_mb
        held = Ticket("held", arrived_ms, pool, workers, round(deadline_s + _MARGIN_S), run, attempt)
        place = replace(held, state="waits", lasts_s=round(PLACE_S), attempt=0)
        # Who waits looks before it writes: written and taken back, its ticket would turn others away for a moment.
        if queued_since is None or self._has_room(held, limits):
            self._store.put(held.key, b"")
            if self._has_room(held, limits):
                if queued_since is not None:
                    self._store.delete([place.key])
                return held
            self._store.put(place.key, b"")
            self._store.delete([held.key])
        else:
            self._store.put(place.key, b"")
        return None

    def leave(self, ticket: Ticket) -> None:
        """Give the functions of an ended run to the others."""
        self._store.delete([ticket.key])

    def forget(self, run: str) -> None:
        """Delete the tickets of a run whose coordinator has died."""
        tickets = [parse_ticket(info.key) for info in self._store.list(ADMISSION_FOLDER)]
        self._store.delete([ticket.key for ticket in tickets if ticket is not None and ticket.run == run])

    def _has_room(self, held: Ticket, limits: Concurrency) -> bool:
        """Return whether a run fits beside those that hold tickets and those that wait and came before it."""
        tickets = self._read()
        holders = [ticket for ticket in tickets if ticket.state == "held" and ticket != held]
        running = {held.run, *(ticket.run for ticket in holders)}
        waiting = [ticket for ticket in tickets if ticket.state == "waits" and ticket.run not in running]
        return _fits([held, *holders, *(ticket for ticket in waiting if ticket.order < held.order)], limits)

    def _read(self) -> list[Ticket]:
        """Return all tickets that have not expired, and delete the others."""
        found: list[tuple[Ticket, datetime]] = []
        for info in self._store.list(ADMISSION_FOLDER):
            ticket = parse_ticket(info.key)
            if ticket is not None:
                found.append((ticket, info.modified))
        now = max((modified for _, modified in found), default=None)
        valid = [
            ticket
            for ticket, modified in found
            if now is not None and now < modified + timedelta(seconds=ticket.lasts_s + _TICK_S)
        ]
        dead = [ticket.key for ticket, _ in found if ticket not in valid]
        if dead:
            self._store.delete(dead)
        return valid


def _fits(tickets: Sequence[Ticket], limits: Concurrency) -> bool:
    """Return whether runs fit into the account, and those that use the same worker function into what it has alone."""
    shared = sum(COORDINATORS + (ticket.workers if ticket.pool == _SHARED else 0) for ticket in tickets)
    reserved = sum(ticket.workers for ticket in tickets if ticket.pool == limits.memory_mb)
    return shared <= limits.unreserved and (limits.reserved is None or reserved <= limits.reserved)
