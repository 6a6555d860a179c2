"""State that a function's execution environment keeps between runs: stack description, clients, buckets, a shard.

It keeps no state of a run. The meter adds up over all runs; the usage of one is a difference between two readings.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.concurrency import Concurrency, read_concurrency
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.init_phase import process_age_s
from fsd_inference.aws.handlers.kept_files import KeptFiles
from fsd_inference.aws.stack import parse_stack
from fsd_inference.engine.loading import WarmShard, start_shard
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import FsdError, StackError, StackUpdatedError
from fsd_inference.fields import load_json
from fsd_inference.limits import MB_PER_VCPU
from fsd_inference.stack_description import StackSpec, WorkerFunction
from fsd_inference.store.base import Readable, Store
from fsd_inference.usage import UsageMeter

STACK_KEY = "stack.json"
"""Key of the stack's description in the network bucket."""

P = ParamSpec("P")
R = TypeVar("R")
_answering = threading.Lock()

_CONNECTIONS = 64
_FRESH_S = 300.0
"""Seconds for which limits of concurrency are taken to be as they were read: Lambda answers few such requests a second
for an account, and people change the limits."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An opened stack: the digest of its description, the description, its run buckets and its network bucket."""

    digest: str
    stack: StackSpec
    runs: tuple[Store, ...]
    plans: Store

    @property
    def store(self) -> Store:
        """The store of inputs, claims, results and statuses: the first run bucket."""
        return self.runs[0]

    def close(self) -> None:
        """Close the buckets."""
        for store in (*self.runs, self.plans):
            store.close()


class Environment:
    """What a process of a function keeps: it carries out invocations one after the other.

    Attributes
    ----------
    code : str
        Digest of the deployed code.
    memory_mb : int
        Memory of the function in MB.
    threads : int
        Number of kernel threads: one per vCPU that Lambda grants for this memory.
    clients : Clients
    meter : UsageMeter
        Counts the requests of all stores, and the invocations that start ranks.
    awake : set of str
        ARNs of worker functions that were found awake.
    """

    def __init__(self) -> None:
        self.code = code_digest()
        self.memory_mb = int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
        self.threads = max(1, round(self.memory_mb / MB_PER_VCPU))
        self.meter = UsageMeter()
        self.awake: set[str] = set()
        self.clients = Clients.of_function(connections=_CONNECTIONS)
        # Spilled frames and cached shards share the disk.
        self._files = KeptFiles.half_of_disk(Path(tempfile.gettempdir()) / "fsd-plans")
        self._concurrency: dict[str, tuple[float, Concurrency | None]] = {}
        self._init_s = 0.0
        self._opened: Opened | None = None
        self._shard: tuple[tuple[str, int], WarmShard] | None = None

    def warm_up(self) -> None:
        """Open the stack, and the clients of a rank; an error will be raised again by the first invocation."""
        with suppress(FsdError):
            self.open()
            _ = self.clients.topics, self.clients.queues, self.clients.functions

    def end_init(self) -> None:
        """Note the length of the init phase, which ends now."""
        self._init_s = process_age_s()

    def take_init_s(self) -> float:
        """Return the seconds of the init phase to the first invocation after it, and 0 to the others."""
        init_s, self._init_s = self._init_s, 0.0
        return init_s

    def open(self, digest: str | None = None) -> Opened:
        """Return the stack that the function belongs to, with open buckets.

        Parameters
        ----------
        digest : str, optional
            Expected digest of the stack's description: the one that the sender of a rank's event has read. If the
            cached description has it, nothing is read. A coordinator passes None and reads the current description for
            each run.

        Raises
        ------
        StackUpdatedError
            The current description has another digest.
        """
        if self._opened is None or self._opened.digest != digest:
            opened = self._read()
            if self._opened is None or self._opened.digest != opened.digest:
                self._opened = opened
            else:
                opened.close()
        if digest not in {None, self._opened.digest}:
            raise StackUpdatedError(
                "the stack's description has changed since the run began; try again", operation="start"
            )
        return self._opened

    def shard(self, opened: Opened, spec: RunSpec, rank: int, stopped: Future[None]) -> WarmShard:
        """Return a rank's shard: from memory if the last run loaded it, and else from the disk cache or the store.

        `stopped` is as for `start_shard`.
        """
        key = (spec.plan, rank)
        if self._shard is None or self._shard[0] != key or not self._shard[1].is_loaded:
            self._shard = None  # memory may not hold two shards at a time
            self._shard = (key, start_shard(self.plans(opened), spec, rank, stopped))
        return self._shard[1]

    def concurrency(self, function: WorkerFunction) -> Concurrency | None:
        """Return what may run at a time with a worker function, as read within the last minutes.

        None if it cannot be read: the function's role is of an earlier release, or Lambda does not answer.
        """
        read_at, known = self._concurrency.get(function.arn, (0.0, None))
        if time.time() - read_at > _FRESH_S:
            known = None
            with suppress(StackError):
                (known,) = read_concurrency(self.clients.functions, [function], self.meter)
            self._concurrency[function.arn] = time.time(), known
        return known

    def plans(self, opened: Opened) -> Readable:
        """Return the network bucket, whose plan objects are immutable, behind the disk cache."""
        return self._files.cached(opened.plans)

    def _read(self) -> Opened:
        bucket = os.environ.get("FSD_STACK_BUCKET")
        if bucket is None:
            raise StackError("FSD_STACK_BUCKET is not set in the function; apply the stack's Terraform module again")
        store = self.clients.open_bucket(bucket, meter=self.meter)
        try:
            data = store.get(STACK_KEY)
        finally:
            store.close()
        if data is None:
            raise StackError(f"{STACK_KEY} is not in bucket {bucket}; apply the stack's Terraform module again")
        try:
            stack = parse_stack(load_json(data))
        except ValueError as error:
            raise StackError(f"{STACK_KEY} in bucket {bucket} is not JSON ({error})") from error
        runs, plans = open_buckets(self.clients, stack, self.meter)
        return Opened(hashlib.sha256(data).hexdigest()[:32], stack, tuple(runs), plans)


@cache
def environment() -> Environment:
    """Return this process's environment, creating it on the first call."""
    return Environment()


def one_at_a_time(handle: Callable[P, R]) -> Callable[P, R]:
    """Make a handler refuse an invocation while its process carries out another one.

    The environment's shard and meter serve one invocation. Lambda gives concurrent invocations processes of their own,
    also on Managed Instances. To wait for the other one could take for ever: ranks of a run wait for each other.
    """

    @wraps(handle)
    def guarded(*arguments: P.args, **named: P.kwargs) -> R:
        if not _answering.acquire(blocking=False):
            raise StackError(
                "this process carries out another invocation, whose shard and counts of requests cannot be shared; "
                "use Lambda's Python runtime, which has a process for each, or one invocation per execution environment"
            )
        try:
            return handle(*arguments, **named)
        finally:
            _answering.release()

    return guarded
