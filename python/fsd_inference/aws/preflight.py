"""Preflight checks of a stack: resources, functions, permissions, concurrency and lanes, as `fsd stack check` runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from uuid import uuid4

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.check import stack_problems
from fsd_inference.aws.clients import Clients, request
from fsd_inference.aws.concurrency import read_concurrency
from fsd_inference.aws.handlers.environment import STACK_KEY
from fsd_inference.aws.lanes import LaneTable, open_lanes
from fsd_inference.aws.probe import PROBES, probe_lane
from fsd_inference.aws.stack import parse_stack
from fsd_inference.aws.waking import wake_stack
from fsd_inference.config import Clocks, RetrySettings
from fsd_inference.errors import FsdError, LaneError, NotAllowedError, StackError
from fsd_inference.fields import load_json
from fsd_inference.limits import PUBLISH_BURST_S
from fsd_inference.stack_description import FunctionsSpec, StackSpec, function_name
from fsd_inference.store.base import Store
from fsd_inference.units import seconds_text
from fsd_inference.usage import UsageMeter

SETTLES_S = 900.0
"""Seconds within which SNS applies new filter policies."""

_RETRY = RetrySettings(attempts=3)
_AGAIN_S = 15.0
_PROBE_S = 60.0
_LANE_WAIT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    what : str
        What was checked.
    state : {"ok", "problem", "unknown"}
        "unknown" if the caller's policy does not allow the check. Only "ok" needs no attention.
    text : str
        What was found, and what to do about a problem.
    """

    what: str
    state: Literal["ok", "problem", "unknown"]
    text: str


def preflight(clients: Clients, stack: StackSpec, *, wait: bool = False, wake: bool = False) -> Iterator[Finding]:
    """Check a stack, and yield each finding as soon as it is known.

    Parameters
    ----------
    clients, stack
        The stack, and clients of its services.
    wait : bool, optional
        Repeat the probe of each lane until it finds no problem, for up to `SETTLES_S` seconds.
    wake : bool, optional
        First wake the functions that sleep because they were unused for weeks.
    """
    meter = UsageMeter()
    runs, networks = open_buckets(clients, stack, meter)
    try:
        if wake and stack.functions is not None:
            yield from _waking(clients, stack.functions, meter)
        yield from _resources(clients, stack, meter)
        yield _objects(runs[0], "run bucket", _read_write)
        if stack.functions is not None:
            yield from _function_settings(clients, stack, stack.functions, meter)
            yield _objects(networks, "description", partial(_description, stack))
            yield _invocation(clients, stack.functions, meter)
            yield _concurrency(clients, stack, stack.functions, meter)
        if stack.lanes and stack.publish_per_s is not None:
            yield _publishing(stack, stack.publish_per_s)
        lanes = open_lanes(runs[0], clients, stack, meter=meter)
        for lane in range(len(stack.lanes)):
            yield _lane(clients, stack, lanes, lane, meter, wait=wait)
    finally:
        for store in (*runs, networks):
            store.close()


def _resources(clients: Clients, stack: StackSpec, meter: UsageMeter) -> Iterator[Finding]:
    problems, count = stack_problems(clients, stack, meter)
    if not problems:
        yield Finding("resources", "ok", f"all {count} topics, queues and buckets exist")
    for problem in problems[:5]:
        yield _failed("resources", problem)
    if len(problems) > 5:
        yield Finding("resources", "problem", f"and {len(problems) - 5} more")


def _failed(what: str, error: FsdError) -> Finding:
    return Finding(what, "unknown" if isinstance(error, NotAllowedError) else "problem", str(error))


def _objects(store: Store, what: str, look: Callable[[Store], str]) -> Finding:
    try:
        return Finding(what, "ok", look(store))
    except FsdError as error:
        return _failed(what, error)


def _read_write(store: Store) -> str:
    key = f"check/{uuid4().hex}"
    if store.get(key) is not None:
        raise StackError(f"object {key} exists although it was never written: the endpoint does not behave like S3")
    store.put(key, b"")
    store.delete([key])
    return "objects can be written, read and deleted; absent ones answer 404"


def _description(stack: StackSpec, networks: Store) -> str:
    data = networks.get(STACK_KEY)
    if data is None:
        raise StackError(
            f"{STACK_KEY} is missing from bucket {stack.network_bucket}, so functions cannot start: apply the stack's "
            "Terraform module again"
        )
    try:
        theirs = parse_stack(load_json(data))
    except ValueError as error:
        raise StackError(f"{STACK_KEY} in bucket {stack.network_bucket} is not JSON ({error}); apply again") from error
    ours = replace(stack, emulator=None)
    for name in ours.__dataclass_fields__:
        if getattr(ours, name) != getattr(replace(theirs, emulator=None), name):
            raise StackError(
                f"the functions' {STACK_KEY} has a different {name!r} than this file: take the file from the stack's "
                "output, or apply again"
            )
    return "the functions read the same description"


# --- functions --------------------------------------------------------------------------------------------------------


def _waking(clients: Clients, functions: FunctionsSpec, meter: UsageMeter) -> Iterator[Finding]:
    try:
        problems = wake_stack(clients, functions, meter)
    except StackError as error:
        yield _failed("waking", error)
        return
    for problem in problems:
        yield Finding("waking", "problem", problem)
    if not problems:
        yield Finding("waking", "ok", "all functions are awake")


def _function_settings(
    clients: Clients, stack: StackSpec, functions: FunctionsSpec, meter: UsageMeter
) -> Iterator[Finding]:
    wanted: list[tuple[str, int | None]] = [(functions.coordinator, None)]
    wanted += [(worker.arn, worker.memory_mb) for worker in functions.workers]
    code: dict[str, str] = {}
    for arn, memory_mb in wanted:
        name = function_name(arn)
        try:
            found: Mapping[str, Any] = request(
                "lambda.manage",
                f"read the configuration of function {arn}",
                partial(clients.functions.get_function_configuration, FunctionName=arn),
                meter=meter,
                retry=_RETRY,
                action="lambda:GetFunctionConfiguration",
            )
        except StackError as error:
            yield _failed(f"function {name}", error)
            continue
        code[name] = found["CodeSha256"]
        wrong = list(_differences(found, stack, functions, memory_mb))
        text = "; ".join(wrong) or f"{found['MemorySize']} MB, {found['Timeout']} s, active"
        yield Finding(f"function {name}", "problem" if wrong else "ok", text)
    if len(set(code.values())) > 1:
        others = sorted(name for name, digest in code.items() if digest != next(iter(code.values())))
        yield Finding("code", "problem", f"{', '.join(others)} has different code than {next(iter(code))}; apply again")
    elif code:
        yield Finding("code", "ok", f"all functions have the code {next(iter(code.values()))}")


def _differences(
    found: Mapping[str, Any], stack: StackSpec, functions: FunctionsSpec, memory_mb: int | None
) -> Iterator[str]:
    if found.get("State") == "Inactive":
        yield "it sleeps, because it was unused for weeks: wake it with fsd stack check --wake"
    elif found.get("State") != "Active":
        yield f"it is {found.get('State')} ({found.get('StateReason', 'no reason given')})"
    if found.get("LastUpdateStatus") == "Failed":
        yield f"its last update failed ({found.get('LastUpdateStatusReason', 'no reason given')})"
    if memory_mb is not None and found["MemorySize"] != memory_mb:
        yield f"it has {found['MemorySize']} MB, not {memory_mb}"
    if found["Timeout"] != functions.timeout_s:
        yield f"its timeout is {found['Timeout']} s, not {functions.timeout_s:g}"
    bucket = found.get("Environment", {}).get("Variables", {}).get("FSD_STACK_BUCKET")
    if bucket != stack.network_bucket:
        yield f"its FSD_STACK_BUCKET is {bucket!r}, not {stack.network_bucket!r}"


def _invocation(clients: Clients, functions: FunctionsSpec, meter: UsageMeter) -> Finding:
    try:
        request(
            "lambda.invoke",
            f"invoke the coordinator {functions.coordinator}",
            lambda: clients.functions.invoke(FunctionName=functions.coordinator, InvocationType="DryRun"),
            meter=meter,
            retry=_RETRY,
            action="lambda:InvokeFunction",
        )
    except StackError as error:
        return _failed("invocation", error)
    return Finding("invocation", "ok", "the coordinator may be invoked")


def _concurrency(clients: Clients, stack: StackSpec, functions: FunctionsSpec, meter: UsageMeter) -> Finding:
    try:
        found = read_concurrency(clients.functions, functions.workers, meter)
    except StackError as error:
        return _failed("concurrency", error)
    for limits in found:
        if limits.workers < 1:
            rest = f"{limits.unreserved} unreserved functions" + (", and 0 for them" if limits.reserved == 0 else "")
            text = (
                f"no worker of {limits.memory_mb} MB can run: the account has {rest}; ask AWS for more, or reserve less"
            )
            return Finding("concurrency", "problem", text)
    largest = max(limits.workers for limits in found)
    text = f"the largest run has P = {largest}" + (
        f" (over queues: {min(largest, stack.ranks)})" if stack.lanes else ""
    )
    if any(limits.workers < largest for limits in found):
        text += "; by size: " + ", ".join(f"{limits.workers} workers of {limits.memory_mb} MB" for limits in found)
    return Finding("concurrency", "ok", text)


def _publishing(stack: StackSpec, quota: int) -> Finding:
    """Name the quota, and the largest run that keeps to it if each rank sends to each other rank in every layer."""
    each = stack.ranks - 1
    text = f"the account may publish {quota:,} messages a second in {stack.region}"
    text += ", as stack.json says" if stack.publish_quota is not None else " by default"
    needed_s = stack.ranks * each / quota
    if needed_s <= PUBLISH_BURST_S:
        return Finding("publishing", "ok", text)
    text += (
        f": a layer after which each of {stack.ranks} ranks sends to all others takes {seconds_text(needed_s)} or "
        "longer; fsd advise says which runs that slows; set publish_quota of the stack if AWS has raised it"
    )
    return Finding("publishing", "ok" if needed_s <= Clocks().stall_s else "problem", text)


# --- lanes ------------------------------------------------------------------------------------------------------------


def _lane(clients: Clients, stack: StackSpec, lanes: LaneTable, lane: int, meter: UsageMeter, *, wait: bool) -> Finding:
    """Probe a lane while holding its lease; with `wait`, repeat until the probe finds no problem."""
    what, until = f"lane {lane}", time.monotonic() + (SETTLES_S if wait else 0.0)
    while True:
        try:
            problems = _probe(clients, stack, lanes, lane, meter)
        except LaneError as error:
            if error.retryable:
                return Finding(what, "ok", f"in use, therefore not probed ({error})")
            return _failed(what, error)
        except FsdError as error:
            return _failed(what, error)
        if not problems:
            return Finding(what, "ok", f"each of {stack.ranks} queues receives its own messages and no others")
        if time.monotonic() + _AGAIN_S > until:
            more = f" (and {len(problems) - 1} more queues)" if len(problems) > 1 else ""
            hint = "" if wait else "; new filters take effect within 15 minutes: use fsd stack check --wait"
            return Finding(what, "problem", f"not settled: {problems[0]}{more}{hint}")
        time.sleep(_AGAIN_S)


def _probe(clients: Clients, stack: StackSpec, lanes: LaneTable, lane: int, meter: UsageMeter) -> list[str]:
    lease = lanes.acquire(uuid4().hex, 0, _PROBE_S, stack.purge_settle_s + _LANE_WAIT_S, [lane])
    received = None
    try:
        problems = probe_lane(clients, stack.lanes[lane], meter)
        if not problems:
            received = PROBES
        return problems
    finally:
        with suppress(FsdError):  # the lease expires by itself
            lanes.release(lease, received=received)
