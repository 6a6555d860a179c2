"""Listing, reading and deleting the objects of runs on a stack: statuses, metrics, run objects and frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fsd_inference.aws.admission import ADMISSION_FOLDER, parse_ticket
from fsd_inference.aws.leases import store_time
from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.aws.status import STATUS_FOLDER, RunStatus, metrics_key, status_key
from fsd_inference.engine.spec import RUNS_FOLDER, attempt_folder
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.limits import HASH_FOLDERS
from fsd_inference.store.base import ObjectInfo, Store
from fsd_inference.threads import ThreadPool

_READERS = 16
_MARGIN_S = 600.0
"""Seconds added to the longest run: waits for Lambda and for a lane come before its clock, and stopping after it."""
_ID_DIGITS = 32


@dataclass(slots=True)
class RunTraces:
    """All objects that one run has left on a stack.

    Attributes
    ----------
    run : str
        Id of the run.
    modified : datetime
        Modification time of its newest object.
    status : RunStatus or None
        None for runs with local processes, and for runs whose coordinator never started.
    objects : list of (int, str)
        Index of the run bucket, and key, of each object.
    """

    run: str
    modified: datetime
    status: RunStatus | None = None
    objects: list[tuple[int, str]] = field(default_factory=list)


def read_statuses(store: Store, newest: int) -> list[RunStatus]:
    """Return the `newest` most recently written statuses, newest first, without those that this release cannot read."""
    infos = sorted(store.list(STATUS_FOLDER), key=lambda info: info.modified, reverse=True)[:newest]
    with ThreadPool(_READERS) as threads:
        found = threads.map(lambda info: _status(store, info.key), infos)
        return sorted((status for status in found if status is not None), key=lambda status: -status.received)


def read_run(store: Store, run: str) -> tuple[RunStatus, RunMetrics | None]:
    """Return a run's status, and the metrics of its last attempt if they exist.

    Parameters
    ----------
    store : Store
        The stack's first run bucket.
    run : str
        The run's id, or a unique prefix of it.

    Raises
    ------
    SettingError
        No run, or more than one, has this id or prefix.
    FileFormatError
        The status or metrics are invalid, or were written by another release.
    """
    key = status_key(run)
    if len(run) < _ID_DIGITS:
        keys = [info.key for info in store.list(STATUS_FOLDER) if info.key.startswith(key)]
        if len(keys) > 1:
            raise SettingError(f"{len(keys)} runs begin with {run!r}; give more digits")
        key = keys[0] if keys else key
    data = store.get(key)
    if data is None:
        raise SettingError(f"the stack has no status of run {run!r}: the run never started, or its status has expired")
    status = RunStatus.from_bytes(data, key)
    at = metrics_key(attempt_folder(status.run, status.attempt))
    metrics = store.get(at)
    return status, None if metrics is None else RunMetrics.from_bytes(metrics, at)


def unfinished(store: Store, runs: Collection[str]) -> list[RunStatus]:
    """Return the statuses of those runs, of some given by their ids, whose coordinators have begun and not ended."""
    found = [_status(store, status_key(run)) for run in runs]
    return [status for status in found if status is not None and status.state in {"waking", "waiting", "running"}]


def find_traces(stores: Sequence[Store]) -> dict[str, RunTraces]:
    """Return the objects of every run in a stack's run buckets, by run id, with the runs' statuses."""
    found: dict[str, RunTraces] = {}

    def note(run: str, bucket: int, info: ObjectInfo) -> None:
        if len(run) != _ID_DIGITS:
            return
        traces = found.setdefault(run, RunTraces(run, info.modified))
        traces.modified = max(traces.modified, info.modified)
        traces.objects.append((bucket, info.key))

    first = stores[0]
    for info in first.list(STATUS_FOLDER):
        note(info.key.removeprefix(STATUS_FOLDER), 0, info)
    with ThreadPool(_READERS) as threads:
        for traces, status in zip(
            found.values(), threads.map(lambda run: _status(first, status_key(run)), list(found)), strict=True
        ):
            traces.status = status
    for info in first.list(ADMISSION_FOLDER):
        ticket = parse_ticket(info.key)
        note("" if ticket is None else ticket.run, 0, info)
    for info in first.list(RUNS_FOLDER):
        note(info.key.split("/")[1], 0, info)
    for bucket, store in enumerate(stores):
        for folder in HASH_FOLDERS:  # frames of the object channel
            for info in store.list(f"{folder}/"):
                note(info.key.split("/")[1], bucket, info)
    return found


def clean(
    stores: Sequence[Store],
    longest_run_s: float,
    *,
    named: Collection[str] = (),
    older_than_s: float | None = None,
    holding: Collection[str] = (),
    dead: Collection[str] = (),
    end: Callable[[RunStatus], object] = lambda _: None,
) -> list[RunTraces]:
    """Delete all objects of the named runs and of ended old ones, and return what was found of them.

    Parameters
    ----------
    stores : sequence of Store
        The stack's run buckets.
    longest_run_s : float
        Longest run in seconds: a run that has written nothing for this time (plus a margin) counts as ended even
        without a final status.
    named : collection of str
        Ids of runs to delete in any state.
    older_than_s : float, optional
        Also delete every ended run that has written nothing for this many seconds.
    holding : collection of str, optional
        Ids of runs that hold a lane: naming these is no error even if they have no objects.
    dead : collection of str, optional
        Ids of runs that have ended without a final status: their leases of lanes have expired.
    end : callable, optional
        Ends a named run that has begun and not ended, given its status. What that writes is deleted too.

    Raises
    ------
    SettingError
        A named run neither has objects nor holds a lane.
    """
    found = find_traces(stores)
    for run in named:
        if run not in found and run not in holding:
            raise SettingError(f"the stack has no objects of run {run!r}; give all {_ID_DIGITS} digits of the run's id")
    # Listings may have finer timestamps than the store's clock, whose "now" could then be before the newest object.
    now = max([store_time(stores[0]), *(traces.modified for traces in found.values())])
    doomed = [
        traces
        for run, traces in found.items()
        if run in named
        or (
            older_than_s is not None
            and now - traces.modified >= timedelta(seconds=older_than_s)
            and (run in dead or not _may_go_on(traces, now, longest_run_s))
        )
    ]
    going_on = unfinished(stores[0], named)
    for status in going_on:
        end(status)
    left = find_traces(stores) if going_on else found
    keys: dict[int, list[str]] = defaultdict(list)
    for traces in doomed:
        for bucket, key in left.get(traces.run, traces).objects:
            keys[bucket].append(key)
    for bucket, names in keys.items():
        # Statuses last: after an interrupted deletion, the remaining objects can still be attributed to ended runs.
        stores[bucket].delete(sorted(names, key=lambda key: key.startswith(STATUS_FOLDER)))
    return doomed


def _may_go_on(traces: RunTraces, now: datetime, longest_run_s: float) -> bool:
    if traces.status is not None and traces.status.is_over:
        return False
    return now - traces.modified < timedelta(seconds=longest_run_s + _MARGIN_S)


def _status(store: Store, key: str) -> RunStatus | None:
    data = store.get(key)
    try:
        return None if data is None else RunStatus.from_bytes(data, key)
    except FileFormatError:
        return None
