"""What a function keeps between the runs it serves: the stack's description, clients and open buckets, and a shard.

Nothing of a run is among it. What ranks count is told apart by what the meter said before.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from shutil import disk_usage

from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.handlers.code import code_digest
from fsd_inference.aws.handlers.kept_files import KeptFiles
from fsd_inference.aws.stack import parse_stack
from fsd_inference.engine.loading import WarmShard, load_shard
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import StackError
from fsd_inference.records import StackSpec, UsageMeter
from fsd_inference.store.base import Store

STACK_KEY = "stack.json"
"""Key of the stack's description in the network bucket."""

MB_PER_CORE = 1769
"""Lambda gives a function one core for so many MB of memory (AWS, "Configure Lambda function memory", 2026-11)."""

_CONNECTIONS = 64


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
        self.threads = max(1, round(self.memory_mb / MB_PER_CORE))
        self.meter = UsageMeter()
        self.clients = Clients(connections=_CONNECTIONS)
        folder = Path(tempfile.gettempdir())
        # Spilled frames and the shards kept share the disk.
        self._files = KeptFiles(folder / "fsd-plans", disk_usage(folder).free // 2)
        self._shard: tuple[tuple[str, int], WarmShard] | None = None

    @cached_property
    def stack(self) -> StackSpec:
        """What the functions belong to."""
        return self._read_stack(os.environ["FSD_STACK_BUCKET"])

    @cached_property
    def _buckets(self) -> tuple[list[Store], Store]:
        return open_buckets(self.clients, self.stack, self.meter)

    @property
    def runs(self) -> list[Store]:
        """Buckets of the runs."""
        return self._buckets[0]

    @property
    def plans(self) -> Store:
        """Bucket of the networks."""
        return self._buckets[1]

    @cached_property
    def read_plan(self) -> Callable[[str], bytes | None]:
        """Reads objects of plans, which never change under their keys, from the disk where they have been read once."""
        return self._files.reader(self.plans.get)

    @property
    def store(self) -> Store:
        """The bucket of inputs, claims, results and statuses."""
        return self.runs[0]

    def shard(self, spec: RunSpec, rank: int) -> WarmShard:
        """Return a rank's shard: the one of the last run if it is that, from the disk or from the store otherwise."""
        key = (spec.plan, rank)
        if self._shard is None or self._shard[0] != key:
            self._shard = None  # two may not fit at a time
            self._shard = (key, load_shard(self.read_plan, spec, rank))
        return self._shard[1]

    def _read_stack(self, bucket: str) -> StackSpec:
        store = self.clients.open_bucket(bucket, meter=self.meter)
        try:
            data = store.get(STACK_KEY)
        finally:
            store.close()
        if data is None:
            raise StackError(f"{STACK_KEY} is not in bucket {bucket}; apply the stack's Terraform module again")
        try:
            return parse_stack(json.loads(data))
        except ValueError as error:
            raise StackError(f"{STACK_KEY} in bucket {bucket} is not JSON ({error})") from error


@cache
def environment() -> Environment:
    """Return this process's environment, which is made once."""
    return Environment()
