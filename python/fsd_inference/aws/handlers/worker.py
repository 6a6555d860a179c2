"""The handler of the worker functions, which runs one rank of one attempt."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from fsd_inference import logs
from fsd_inference.aws.backends import open_channel
from fsd_inference.aws.events import WAKE_EVENT, RankEvent
from fsd_inference.aws.failures import reported_failure
from fsd_inference.aws.handlers.environment import Environment, environment, one_at_a_time
from fsd_inference.aws.handlers.logs import Log
from fsd_inference.aws.handlers.staying import stay_busy
from fsd_inference.aws.launcher import LambdaLauncher
from fsd_inference.aws.notes import RankNotes, tell_failure
from fsd_inference.deadlines import cleaning_up
from fsd_inference.engine.loading import LoadedRank
from fsd_inference.engine.rank import Backends, run_rank
from fsd_inference.errors import FsdError, SettingError, StackUpdatedError
from fsd_inference.stack_description import WorkerFunction
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.threads import ThreadPool

_END_S = 10.0
"""Seconds before Lambda's timeout at which a rank gives up, so that it can still send an abort to the others."""


class Context(Protocol):
    """Lambda's context argument of a handler, as far as it is used here."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds left before Lambda ends the invocation."""


@one_at_a_time
def handle(event: object, context: Context) -> dict[str, Any]:
    """Run the rank that an event names.

    Parameters
    ----------
    event : dict
        JSON value of a `RankEvent`, or `WAKE_EVENT`, which does nothing.
    context : Context
        Lambda's context of the invocation.

    Returns
    -------
    dict
        ``{"rank": r, "result": "done" | "failed" | "duplicate" | "late"}``. The outcome of the run is in its status.
        ``{"awake": true}`` after `WAKE_EVENT`.

    Raises
    ------
    FsdError
        The rank could not start; Lambda sends a failure record to the queue that the coordinator reads.
    """
    started, warm = time.time(), environment()
    init_s = warm.take_init_s()
    if event == WAKE_EVENT:
        return {"awake": True}
    rank_event = RankEvent.from_json(event)
    spec = rank_event.spec
    log = Log(run=spec.run, attempt=spec.attempt, rank=rank_event.rank, request=context.aws_request_id)
    try:
        result = _run(warm, rank_event, started, init_s, context.get_remaining_time_in_millis() / 1000, log)
    except FsdError as error:
        log.line(str(error), level="ERROR", kind=type(error).__name__)
        raise
    return {"rank": rank_event.rank, "result": result}


def _run(warm: Environment, rank_event: RankEvent, started: float, init_s: float, left_s: float, log: Log) -> str:
    if started >= rank_event.spec.deadline:
        log.line("this event arrived after the run's deadline", level="WARNING")
        return "late"
    if rank_event.code != warm.code:
        raise StackUpdatedError(
            f"rank {rank_event.rank} has different code than its starter: the stack is being updated; try again",
            rank=rank_event.rank,
            operation="start",
        )
    before = warm.meter.snapshot()
    opened = warm.open(rank_event.stack)
    functions = opened.stack.functions
    function = None if functions is None else functions.worker(rank_event.memory_mb)
    if function is None:
        raise SettingError(f"stack {opened.stack.name} has no workers of {rank_event.memory_mb} MB")
    spec = rank_event.spec.ending_by(started + left_s - _END_S)
    spec = replace(spec, settings=replace(spec.settings, threads=_threads(warm, function)))
    channel = open_channel(
        warm.clients,
        opened.stack,
        opened.runs,
        rank_event.channel,
        spec=spec,
        rank=rank_event.rank,
        lane=rank_event.lane,
    )
    backends = Backends(opened.plans, opened.store, channel, before=before)
    log.line("rank begins", starter=rank_event.starter, channel=rank_event.channel, workers=spec.settings.workers)
    try:
        with TemporaryFolder("spill") as spill, ThreadPool(1, thread_name_prefix="notes") as thread:
            ended = run_rank(
                spec=spec,
                rank=rank_event.rank,
                starter=rank_event.starter,
                started=started,
                load=lambda stopped: LoadedRank(
                    warm.shard(opened, spec, rank_event.rank, stopped),
                    opened.store,
                    spec,
                    str(spill),
                    warm.memory_mb * 2**20,
                ),
                backends=backends,
                launcher=LambdaLauncher(warm.clients.functions, function.arn, rank_event, warm.meter),
                on_layer=RankNotes(opened.store, spec, rank_event.rank, thread).on_layer,
                init_s=init_s,
            )
    finally:
        backends.close()
    if ended is None:
        log.line("another invocation has this rank", level="WARNING")
        return "duplicate"
    log.rank_metrics(opened.stack.name, rank_event.channel, ended.report)
    if ended.error is not None:
        error = ended.error
        if ended.noticed:
            with suppress(FsdError), cleaning_up():  # the coordinator sees it later in the report of rank 0
                tell_failure(opened.store, spec.prefix, reported_failure(error))
        log.line(str(error), level="ERROR", kind=type(error).__name__, step=error.layer, operation=error.operation)
        lane_s = 0.0 if rank_event.lane is None else opened.stack.purge_settle_s
        stay_busy(opened.store, spec, rank_event.rank, error, lane_s=lane_s, ends=started + left_s - _END_S)
        return "failed"
    log.line("rank is done", seconds=round(time.time() - started, 3))
    return "done"


def _threads(warm: Environment, function: WorkerFunction) -> int:
    """Return the number of kernel threads; on Managed Instances the vCPUs do not follow from the memory alone."""
    return warm.threads if function.managed is None else function.managed.vcpus


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    logs.start(as_json=True)
    # In Lambda's init phase, which has full processors whatever the function's memory, and is not part of its timeout.
    environment().warm_up()
    environment().end_init()
