"""What a function keeps between the runs it serves: the stack's description, clients and open buckets, and a shard.

Nothing of a run is among it. What ranks count is told apart by what the meter said before.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import disk_usage

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.kept_files import KeptFiles
from fsd_inference.aws.stack import parse_stack
from fsd_inference.engine.loading import WarmShard, load_shard
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import StackError, StackUpdatedError
from fsd_inference.limits import MB_PER_VCPU
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.usage import UsageMeter

STACK_KEY = "stack.json"
"""Key of the stack's description in the network bucket."""


_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Opened:
    """A stack's description with its digest, its buckets of runs, and that of its networks."""

    digest: str
    stack: StackSpec
    runs: tuple[Store, ...]
    plans: Store

    @property
    def store(self) -> Store:
        """The bucket of inputs, claims, results and statuses."""
        return self.runs[0]

    def close(self) -> None:
        """Close the buckets."""
        for store in (*self.runs, self.plans):
            store.close()


class Environment:
    """One execution environment of a function; see the module.

    Attributes
    ----------
    code : str
        Digest of the code.
    memory_mb, threads : int
        Memory of the function, and kernel threads that follow from it.
    clients : Clients
    meter : UsageMeter
        Counts the requests of all stores, and of launches.
    """

    def __init__(self) -> None:
        self.code = code_digest()
        self.memory_mb = int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])
        self.threads = max(1, round(self.memory_mb / MB_PER_VCPU))
        self.meter = UsageMeter()
        self.clients = Clients.of_function(connections=_CONNECTIONS)
        folder = Path(tempfile.gettempdir())
        # Spilled frames and the shards kept share the disk.
        self._files = KeptFiles(folder / "fsd-plans", disk_usage(folder).free // 2)
        self._opened: Opened | None = None
        self._shard: tuple[tuple[str, int], WarmShard] | None = None

    def open(self, digest: str | None = None) -> Opened:
        """Return the stack that the functions belong to, its buckets open.

        Parameters
        ----------
        digest : str, optional
            Of the description that whoever started this rank has read; the last one read here serves if it is that. A
            coordinator gives none: it reads the description for each run, which may have changed since.

        Raises
        ------
        StackUpdatedError
            The description is not that one (any more).
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

    def shard(self, opened: Opened, spec: RunSpec, rank: int) -> WarmShard:
        """Return a rank's shard: the one of the last run if it is that, from the disk or from the store otherwise."""
        key = (spec.plan, rank)
        if self._shard is None or self._shard[0] != key:
            self._shard = None  # two may not fit at a time
            self._shard = (key, load_shard(self.plan_reader(opened), spec, rank))
        return self._shard[1]

    def plan_reader(self, opened: Opened) -> Callable[[str], bytes | None]:
        """Return what reads objects of plans, which never change under their keys: from the disk the second time."""
        return self._files.reader(opened.plans.get)

    def _read(self) -> Opened:
        bucket = os.environ["FSD_STACK_BUCKET"]
        store = self.clients.open_bucket(bucket, meter=self.meter)
        try:
            data = store.get(STACK_KEY)
        finally:
            store.close()
        if data is None:
            raise StackError(f"{STACK_KEY} is not in bucket {bucket}; apply the stack's Terraform module again")
        try:
            stack = parse_stack(json.loads(data))
        except ValueError as error:
            raise StackError(f"{STACK_KEY} in bucket {bucket} is not JSON ({error})") from error
        runs, plans = open_buckets(self.clients, stack, self.meter)
        return Opened(hashlib.sha256(data).hexdigest()[:32], stack, tuple(runs), plans)


@cache
def environment() -> Environment:
    """Return this process's environment, which is made once."""
    return Environment()
