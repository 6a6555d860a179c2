"""The handler of the coordinator function, which carries out one attempt at a run."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from fsd_inference import logs
from fsd_inference.aws.coordination import Coordination, Resources
from fsd_inference.aws.events import WAKE_EVENT, RunEvent
from fsd_inference.aws.handlers.environment import environment, one_at_a_time
from fsd_inference.aws.handlers.logs import Log
from fsd_inference.aws.handlers.worker import Context
from fsd_inference.aws.status import RunStatus, status_key
from fsd_inference.aws.waking import wake_workers
from fsd_inference.errors import InputError, RunError
from fsd_inference.store.base import Store


@one_at_a_time
def handle(event: object, context: Context) -> dict[str, Any]:
    """Carry out the attempt that an event requests.

    Parameters
    ----------
    event : dict
        JSON value of a `RunEvent`, or `WAKE_EVENT`.
    context : Context
        Lambda's context of the invocation.

    Returns
    -------
    dict
        The run's status (`RunStatus.to_json`), which is also stored; ``{"duplicate": true}`` if another invocation
        carries out this attempt. ``{"asleep": [...]}`` after `WAKE_EVENT`: a line for each worker function that cannot
        be woken.
    """
    ends = time.time() + context.get_remaining_time_in_millis() / 1000
    warm = environment()
    before, init_s = warm.meter.snapshot(), warm.take_init_s()
    opened = warm.open()
    if event == WAKE_EVENT and opened.stack.functions is not None:
        return {"asleep": wake_workers(warm.clients.functions, opened.stack.functions, warm.meter)}
    try:
        run_event = RunEvent.from_json(event)
    except InputError as error:
        return _refuse(opened.store, event, error).to_json()
    log = Log(run=run_event.spec.run, attempt=run_event.spec.attempt, request=context.aws_request_id)
    log.line("run begins", channel=run_event.channel, workers=run_event.spec.settings.workers, plan=run_event.spec.plan)
    resources = Resources(
        warm.clients,
        opened.stack,
        opened.digest,
        opened.runs,
        warm.meter,
        warm.plans(opened).get,
        warm.code,
        warm.concurrency,
        warm.awake,
    )
    status = Coordination(resources, run_event, ends=ends, before=before, init_s=init_s).carry_out()
    if status is None:
        log.line("another invocation has this attempt", level="WARNING")
        return {"duplicate": True}
    if status.error is not None:
        log.line(str(status.error), level="ERROR", kind=type(status.error).__name__, rank=status.error.rank)
    log.line("run ended", state=status.state, seconds=round(time.time() - status.received, 3))
    return status.to_json()


def _refuse(store: Store, event: object, error: InputError) -> RunStatus:
    """Return a failed status for an invalid event, and store it if the event names a valid run id."""
    fields: Mapping[str, Any] = event if isinstance(event, Mapping) else {}
    run = str(fields.get("run") or "unknown")
    status = RunStatus(
        run=run,
        attempt=fields["attempt"] if isinstance(fields.get("attempt"), int) else 0,
        plan=str(fields.get("plan") or "unknown"),
        channel=str(fields.get("channel") or "unknown"),
        workers=0,
        samples=0,
        state="failed",
        received=time.time(),
        ended=time.time(),
        error=RunError(str(error), operation="read the event"),
    )
    Log(run=run).line(str(error), level="ERROR", kind=type(error).__name__)
    if len(run) == 32 and set(run) <= set("0123456789abcdef"):
        store.put(status_key(run), json.dumps(status.to_json()).encode())
    return status


if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    logs.start(as_json=True)
    environment().end_init()  # the init phase, whose time does not count against the invocation's timeout
