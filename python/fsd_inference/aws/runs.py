"""What runs left on a stack: statuses, metrics, objects of runs and of their channel; and cleaning that up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from fsd_inference.aws.lanes import store_time
from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.aws.status import STATUS_FOLDER, RunStatus, metrics_key, status_key
from fsd_inference.engine.spec import RUNS_FOLDER, attempt_folder
from fsd_inference.errors import FileFormatError, SettingError
from fsd_inference.limits import HASH_FOLDERS
from fsd_inference.store.base import ObjectInfo, Store
from fsd_inference.threads import ThreadPool

_READERS = 16
_MARGIN_S = 600.0
"""A run may wait for Lambda and for a lane before its own time begins, and takes a while to end after it."""
_ID_DIGITS = 32


@dataclass(slots=True)
class RunTraces:
    """The objects of one run.

    Attributes
    ----------
    run : str
        Its id.
    modified : datetime
        When the newest of its objects was written.
    status : RunStatus or None
        None of a run over local processes, or of one whose coordinator never began.
    objects : list of (int, str)
        Bucket of runs, and key.
    """

    run: str
    modified: datetime
    status: RunStatus | None = None
    objects: list[tuple[int, str]] = field(default_factory=list)


def read_statuses(store: Store, newest: int) -> list[RunStatus]:
    """Return the statuses written last, the newest first; what this release cannot read is left out."""
    infos = sorted(store.list(STATUS_FOLDER), key=lambda info: info.modified, reverse=True)[:newest]
    with ThreadPool(_READERS) as threads:
        found = threads.map(lambda info: _status(store, info.key), infos)
        return sorted((status for status in found if status is not None), key=lambda status: -status.received)


def read_run(store: Store, run: str) -> tuple[RunStatus, RunMetrics | None]:
    """Return a run's status, and its last attempt's metrics if there are any.

    Parameters
    ----------
    store : Store
        The stack's first bucket of runs.
    run : str
        The run's id, or as many of its first digits as no other has.

    Raises
    ------
    SettingError
        There is no such run, or there are several.
    FileFormatError
        It was made by another release.
    """
    key = status_key(run)
    if len(run) < _ID_DIGITS:
        keys = [info.key for info in store.list(STATUS_FOLDER) if info.key.startswith(key)]
        if len(keys) > 1:
            raise SettingError(f"{len(keys)} runs begin with {run!r}; give more digits")
        key = keys[0] if keys else key
    data = store.get(key)
    if data is None:
        raise SettingError(f"there is no status of run {run!r} on the stack: it never began, or it has expired")
    status = RunStatus.from_bytes(data, key)
    at = metrics_key(attempt_folder(status.run, status.attempt))
    metrics = store.get(at)
    return status, None if metrics is None else RunMetrics.from_bytes(metrics, at)


def find_traces(stores: Sequence[Store]) -> dict[str, RunTraces]:
    """Return what there is of each run in a stack's buckets of runs, statuses read."""
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
    for info in first.list(RUNS_FOLDER):
        note(info.key.split("/")[1], 0, info)
    for bucket, store in enumerate(stores):
        for folder in HASH_FOLDERS:  # of the channel "object"
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
) -> list[RunTraces]:
    """Delete all objects of runs that have ended, or that nothing can be alive of; return what was deleted.

    Parameters
    ----------
    stores : sequence of Store
        The stack's buckets of runs.
    longest_run_s : float
        What was written by a run longer ago than this (and a margin) is of one that has ended, if it says so or not.
    named : collection of str
        Runs to delete whatever their state.
    older_than_s : float, optional
        Delete all others too of which nothing was written for so long; those that may be going on are kept.
    holding : collection of str, optional
        Runs that hold a lane, and may have left nothing else.

    Raises
    ------
    SettingError
        A run that is named has left nothing.
    """
    found = find_traces(stores)
    for run in named:
        if run not in found and run not in holding:
            raise SettingError(f"there is nothing of run {run!r} on the stack; name runs by all {_ID_DIGITS} digits")
    # A listing may tell fractions of a second that the time of a single object lacks, and no run is younger than now.
    now = max([store_time(stores[0]), *(traces.modified for traces in found.values())])
    doomed = [
        traces
        for run, traces in found.items()
        if run in named
        or (
            older_than_s is not None
            and now - traces.modified >= timedelta(seconds=older_than_s)
            and not _may_go_on(traces, now, longest_run_s)
        )
    ]
    keys: dict[int, list[str]] = defaultdict(list)
    for traces in doomed:
        for bucket, key in traces.objects:
            keys[bucket].append(key)
    for bucket, names in keys.items():
        # Statuses last: a cleaning that is broken off can still be told what there was.
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
