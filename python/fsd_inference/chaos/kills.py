"""SIGKILL of each rank at each tenth of a run: right with a retry, without one an error that soon names the rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from fsd_inference.chaos.schedule import LAYERS, PROCESS_PLACES, Fault, Schedule
from fsd_inference.chaos.trial import Outcome

SOON_S = 10.0
"""Seconds within which the error must be there, with the end of the program."""
COLUMNS = ("channel", "attempts", "runs", "right", "named", "ended before", "broken", "slowest s")
"""Columns of the table. "named" counts errors that name the rank that was killed; the seconds are those from the kill
to the end of the program."""

_WORKERS = 3
_TENTHS = 10


def schedules(places: Sequence[str] = PROCESS_PLACES) -> list[Schedule]:
    """Return a schedule for each rank, each tenth of a run, and one and two attempts, at some places."""
    return [
        Schedule(0, place, _WORKERS, 1, attempts, (Fault("kill rank", tenth * LAYERS // _TENTHS, rank),))
        for place in places
        for attempts in (2, 1)
        for rank in range(_WORKERS)
        for tenth in range(_TENTHS)
    ]


def problem(outcome: Outcome) -> str | None:
    """Return what is wrong with the outcome of one of these schedules; None if it is as promised."""
    schedule, seconds = outcome.schedule, outcome.fault_s
    (fault,) = schedule.faults
    if outcome.is_failure or outcome.verdict == "unnamed":
        return str(outcome)
    if outcome.verdict == "right":
        return None  # a rank that had finished could be killed without harm
    if schedule.attempts > 1:
        return f"an attempt was left: {outcome}"
    if outcome.error is None or outcome.error["rank"] != fault.rank:
        return f"another rank is named: {outcome}"
    return None if seconds is not None and seconds <= SOON_S else f"it took too long: {outcome}"


def rows(outcomes: Sequence[Outcome]) -> list[tuple[object, ...]]:
    """Return the rows of the table, one for each channel and number of attempts."""
    groups: defaultdict[tuple[str, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[outcome.schedule.place, outcome.schedule.attempts].append(outcome)
    return [
        (
            place,
            attempts,
            len(group),
            sum(outcome.verdict == "right" for outcome in group),
            sum(outcome.verdict == "error" and problem(outcome) is None for outcome in group),
            sum(not outcome.is_fired for outcome in group),
            sum(problem(outcome) is not None for outcome in group),
            f"{max(outcome.fault_s or 0.0 for outcome in group):.1f}",
        )
        for (place, attempts), group in groups.items()
    ]
