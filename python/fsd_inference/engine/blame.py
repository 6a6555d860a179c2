"""Who caused a stall: follows the ranks that waited for each other to the one that all of them waited for.

A rank that stops makes its neighbours wait, and their neighbours in turn. Whichever of them runs into the stall clock
first names the rank for which it waited itself, which may be a victim like it. The reports say for whom each rank
waited in the end, so that together they lead to the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fsd_inference.errors import AbortedError, DeadlineError, RunError, StallError
from fsd_inference.rank_report import RankReport

_NAMED = 5
"""Maximum number of waiting ranks that a message lists."""


class _Wait(NamedTuple):
    """A wait for the frames of `layer` from `rank`; waits are ordered by the step that they hold up."""

    layer: int
    micro_batch: int
    rank: int


def stall_cause(error: StallError, reports: Mapping[int, RankReport]) -> RunError:
    """Return the error that names the cause of a stall.

    The cause is the rank at the end of the chain of waits that begins with `error`: one that wrote no report, failed
    for a reason of its own, or did not wait for others. Among several it is the one whose missing frames belong to the
    lowest layer. Ranks that wait for each other have lost a frame: that of the lowest layer, as a rank can be ahead of
    another only by what it has received.

    Parameters
    ----------
    error : StallError
        What one rank noticed.
    reports : mapping of int to RankReport
        The reports of the ranks that could still write one, by rank.

    Returns
    -------
    RunError
        The error of its own of the rank at the end; `error` itself if it names that rank and layer; else a new one.
    """
    if error.rank is None:
        return error
    first = _Wait(error.layer or 0, 0, error.rank)
    waits, waiting = {first}, {first.rank: _reporter(error, reports)}  # rank -> the one by which it was reached
    reached = [first.rank]
    for rank in reached:
        for wait in _waits_of(rank, reports):
            waits.add(wait)
            if wait.rank not in waiting:
                waiting[wait.rank] = rank
                reached.append(wait.rank)
    cause = min([wait for wait in waits if not _waits_of(wait.rank, reports)] or waits)
    report = reports.get(cause.rank)
    if report is not None and (own := _own_error(report)) is not None:
        return own
    if (cause.rank, cause.layer) == (first.rank, first.layer):
        return error
    return _blamed(cause, report, _waiting_for(cause.rank, waiting))


def _reporter(error: StallError, reports: Mapping[int, RankReport]) -> int | None:
    """Return the rank that noticed the stall; None if it wrote no report."""
    for rank, report in sorted(reports.items()):
        position = report.position
        if position is not None and error.rank in position.awaited and _awaited_layer(report) == error.layer:
            return rank
    return None


def _waits_of(rank: int, reports: Mapping[int, RankReport]) -> list[_Wait]:
    """Return the waits of a rank; none if it wrote no report, or failed for a reason of its own."""
    report = reports.get(rank)
    if report is None or report.position is None or _own_error(report) is not None:
        return []
    return [_Wait(_awaited_layer(report), report.position.micro_batch, other) for other in report.position.awaited]


def _awaited_layer(report: RankReport) -> int:
    """Return the layer whose frames a rank awaits: the one before that which it computes next."""
    return 0 if report.position is None else max(0, report.position.layer - 1)


def _own_error(report: RankReport) -> RunError | None:
    """Return the error of a rank that failed for a reason other than a stall; None if it gave up because of one."""
    error = report.failure
    return None if isinstance(error, StallError | AbortedError | DeadlineError) else error


def _waiting_for(rank: int, waiting: Mapping[int, int | None]) -> list[int]:
    """Return the ranks of the chain that ends with `rank`, the nearest first."""
    chain = [rank]
    while (before := waiting.get(chain[-1])) is not None and before not in chain:
        chain.append(before)
    return chain[1:]


def _blamed(cause: _Wait, report: RankReport | None, chain: list[int]) -> StallError:
    position = None if report is None else report.position
    if position is None:
        what = f"rank {cause.rank} stopped responding in layer {cause.layer}"
    elif position.awaited:
        what = f"a frame of layer {cause.layer} from rank {cause.rank} was lost"
    else:
        what = f"rank {cause.rank} was still {position.doing} when the frames of layer {cause.layer} were overdue"
    names = ", ".join(f"rank {rank}" for rank in chain[:_NAMED]) + (", ..." if len(chain) > _NAMED else "")
    waited = f" ({names} waited for it)" if chain else ""
    message = f"{what}{waited}; check the log of rank {cause.rank} and try again"
    return StallError(message, rank=cause.rank, layer=cause.layer, operation="receive")
