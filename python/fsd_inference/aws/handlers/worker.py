"""The worker function: one rank of one attempt."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from fsd_inference import logs
from fsd_inference.aws.backends import open_channel
from fsd_inference.aws.events import RankEvent
from fsd_inference.aws.handlers.environment import Environment, environment
from fsd_inference.aws.handlers.logs import Log
from fsd_inference.aws.launcher import LambdaLauncher
from fsd_inference.aws.status import progress_key
from fsd_inference.engine.loading import load_rank
from fsd_inference.engine.rank import Backends, run_rank
from fsd_inference.errors import FsdError, SettingError, StackUpdatedError
from fsd_inference.limits import PROGRESS_S
from fsd_inference.store.base import Store
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.threads import ThreadPool

_END_S = 10.0
"""Seconds before Lambda's time limit at which a rank gives up, so that it can still tell the others."""


class Context(Protocol):
    """What Lambda hands to a handler beside the event, as far as it is used here."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""


def handle(event: object, context: Context) -> dict[str, Any]:
    """Run the rank that an event names.

    Parameters
    ----------
    event : dict
        See `RankEvent`.
    context : Context
        Lambda's.

    Returns
    -------
    dict
        ``{"rank": r, "result": "done" | "failed" | "duplicate" | "late"}``. How a run ended is in its status.

    Raises
    ------
    FsdError
        The rank could not begin; the coordinator hears of it from Lambda.
    """
    started = time.time()
    asked = RankEvent.from_json(event)
    spec = asked.spec
    log = Log(run=spec.run, attempt=spec.attempt, rank=asked.rank, request=context.aws_request_id)
    try:
        warm = environment()
        result = _run(warm, asked, started, context.get_remaining_time_in_millis() / 1000, log)
    except FsdError as error:
        log.line(str(error), level="ERROR", kind=type(error).__name__)
        raise
    return {"rank": asked.rank, "result": result}


def _run(warm: Environment, asked: RankEvent, started: float, left_s: float, log: Log) -> str:
    if started >= asked.spec.deadline:
        log.line("this event came after the run's deadline", level="WARNING")
        return "late"
    if asked.code != warm.code:
        raise StackUpdatedError(
            f"rank {asked.rank} has other code than the rank that started it: the stack is being updated; try again",
            rank=asked.rank,
            operation="start",
        )
    before = warm.meter.snapshot()
    opened = warm.open(asked.stack)
    functions = opened.stack.functions
    function = None if functions is None else functions.worker(asked.memory_mb)
    if function is None:
        raise SettingError(f"stack {opened.stack.name} has no workers of {asked.memory_mb} MB")
    spec = replace(
        asked.spec,
        deadline=min(asked.spec.deadline, started + left_s - _END_S),
        settings=replace(asked.spec.settings, threads=warm.threads),
    )
    channel = open_channel(
        warm.clients, opened.stack, opened.runs, asked.channel, spec=spec, rank=asked.rank, lane=asked.lane
    )
    backends = Backends(opened.plans, opened.store, channel, before=before)
    log.line("rank begins", starter=asked.starter, channel=asked.channel, workers=spec.settings.workers)
    try:
        with TemporaryFolder("spill") as spill, ThreadPool(1, thread_name_prefix="progress") as notes:
            ended = run_rank(
                spec=spec,
                rank=asked.rank,
                starter=asked.starter,
                started=started,
                load=lambda: load_rank(opened.store, spec, warm.shard(opened, spec, asked.rank), str(spill)),
                backends=backends,
                launcher=LambdaLauncher(warm.clients.functions, function.arn, asked, warm.meter),
                on_layer=_progress(opened.store, asked, notes) if asked.rank == 0 else (lambda _: None),
            )
    finally:
        backends.close()
    if ended is None:
        log.line("another invocation has this rank", level="WARNING")
        return "duplicate"
    log.rank_metrics(opened.stack.name, asked.channel, ended.report)
    if ended.error is not None:
        error = ended.error
        log.line(str(error), level="ERROR", kind=type(error).__name__, step=error.layer, operation=error.operation)
        return "failed"
    log.line("rank is done", seconds=round(time.time() - started, 3))
    return "done"


def _progress(store: Store, asked: RankEvent, notes: ThreadPool) -> Callable[[int], None]:
    """Return what notes in the store how many layers are done, beside the computing and not too often."""
    due = time.monotonic() + PROGRESS_S

    def write(layers: int) -> None:
        with suppress(FsdError):  # whoever reads it can do without
            store.put(progress_key(asked.spec.prefix), str(layers).encode())

    def on_layer(layers: int) -> None:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + PROGRESS_S
            notes.submit(write, layers)

    return on_layer


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    logs.start(as_json=True)
    environment()  # while Lambda gives the start-up its own time
