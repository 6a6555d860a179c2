"""Ending of attempts whose coordinator has died: their ranks, which would go on, their lanes and their tickets."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from fsd_inference.aws.admission import Admission
from fsd_inference.aws.backends import open_channel
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.lanes import open_lanes
from fsd_inference.aws.status import RunStatus, status_key
from fsd_inference.config import RunSettings
from fsd_inference.deadlines import within
from fsd_inference.engine.control import abort_frame
from fsd_inference.engine.ending import read_reports
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import AbortedError, FsdError, RunError
from fsd_inference.limits import ABORTED_S, LONGEST_POLL_S, REPORT_BACKOFF
from fsd_inference.logs import Logger
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.threads import ThreadPool

_log = Logger(__name__)

_ENDING_S = 40.0
"""Longest time in seconds for ending the ranks of a dead coordinator, and for the purge of their lane."""
_WRITERS = 16


def end_orphans(clients: Clients, stack: StackSpec, runs: Sequence[Store], spec: RunSpec, channel: str) -> list[int]:
    """End an attempt whose coordinator has died, and return the numbers of the lanes that are free now.

    Ranks that run are aborted; those that have not started find their claims taken, and end.

    Parameters
    ----------
    clients, stack, runs
        The stack, clients of its services, and its run buckets.
    spec : RunSpec
        The attempt; of its settings only the number of workers counts.
    channel : str
        The channel of its ranks.

    Raises
    ------
    FsdError
        A service failed or refused; what is left expires.
    """
    freed: list[int] = []
    if channel == "queue":
        freed = open_lanes(runs[0], clients, stack, meter=runs[0].meter).free(
            spec.run,
            LONGEST_POLL_S,
            lambda lane, attempt: _end_ranks(clients, stack, runs, replace(spec, attempt=attempt), channel, lane),
        )
    else:
        _end_ranks(clients, stack, runs, spec, channel, None)
    Admission(runs[0]).forget(spec.run)
    return freed


def give_up(
    clients: Clients, stack: StackSpec, runs: Sequence[Store], spec: RunSpec, channel: str, error: RunError
) -> None:
    """End an attempt whose coordinator has died, and write why into its status; what that fails to do expires.

    Parameters are those of `end_orphans`.
    """
    try:
        with within(_ENDING_S):
            end_orphans(clients, stack, runs, spec, channel)
            end_status(runs[0], spec, error)
    except FsdError as failed:
        _log.of(run=spec.run).warning("the ranks of the run were not ended: %s", failed)


def end_status(store: Store, spec: RunSpec, error: RunError) -> None:
    """Write the final status of an attempt whose coordinator has died, unless one is there or the next has begun."""
    key = status_key(spec.run)
    data = store.get(key)
    if data is None:
        return
    status = RunStatus.from_bytes(data, key)
    if status.attempt == spec.attempt and not status.is_over:
        ended = replace(status, state="failed", error=error, ended=time.time())
        store.put(key, json.dumps(ended.to_json()).encode())


def attempt_of(status: RunStatus) -> RunSpec:
    """Return as much of the specification of an attempt as its status tells."""
    settings = RunSettings(workers=status.workers)
    return RunSpec(status.run, status.attempt, status.plan, status.samples, 1, 0.0, settings)


def send_abort(
    clients: Clients,
    stack: StackSpec,
    runs: Sequence[Store],
    channel: str,
    spec: RunSpec,
    *,
    lane: int | None,
    source: int,
    error: RunError,
) -> None:
    """Send an abort to all ranks but `source`, on its behalf; raise `ChannelError` if that fails."""
    frame = abort_frame(spec, source, error)
    if frame is None:
        return
    opened = open_channel(clients, stack, runs, channel, spec=spec, rank=source, lane=lane)
    try:
        opened.abort(frame)
    finally:
        opened.close()


def _end_ranks(
    clients: Clients, stack: StackSpec, runs: Sequence[Store], spec: RunSpec, channel: str, lane: int | None
) -> None:
    """Abort the ranks that have started, keep the others from starting, and wait for the former to report."""
    store, ranks = runs[0], range(spec.settings.workers)
    with ThreadPool(_WRITERS) as threads:
        kept = list(threads.map(lambda rank: store.put_if_absent(spec.claim_key(rank), b""), ranks))
    running = [rank for rank in ranks if kept[rank] is None]
    gone = AbortedError("the coordinator of the run has died", operation="run")
    until = time.monotonic() + ABORTED_S
    for source in range(min(2, len(running), spec.settings.workers)):  # an abort does not reach its source
        send_abort(clients, stack, runs, channel, spec, lane=lane, source=source, error=gone)
    while running and time.monotonic() < until:
        reported = {report.rank for report in read_reports(store, spec, running)}
        running = [rank for rank in running if rank not in reported]
        if running:
            time.sleep(REPORT_BACKOFF.longest_s)
