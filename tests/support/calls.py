"""A minimal client of a stack with functions, which starts runs with events and objects, without a session."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from scipy import sparse

import fsd_inference as fsd
from fsd_inference.aws.backends import open_buckets
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.events import RunEvent
from fsd_inference.aws.status import RunStatus, metrics_key, status_key
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.engine.inputs import encode_input
from fsd_inference.engine.micro_batches import micro_batch_sizes
from fsd_inference.engine.results import joined_outputs
from fsd_inference.engine.serial import serial_state, state_rows
from fsd_inference.engine.spec import RunSpec
from fsd_inference.partitioning import Manifest, Partition, load_plan, read_manifest
from fsd_inference.partitioning.manifest import MANIFEST_FILE
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.base import Store
from fsd_inference.usage import UsageMeter

PATIENT = Clocks(start_s=220.0, stall_s=220.0, run_s=220.0)
"""Generous timeouts for tests of other things: a dozen cold starts in sequence on a busy machine."""


@dataclass(frozen=True)
class Pushed:
    """A partitioned network that was uploaded to the stack."""

    manifest: Manifest
    partition: Partition

    @property
    def plan(self) -> str:
        return self.manifest.plan_digest.hex()


class Caller:
    """A client that invokes the coordinator of a stack."""

    def __init__(self, stack: StackSpec) -> None:
        self.stack = stack
        self.clients = Clients.of_stack(stack)
        runs, self.plans = open_buckets(self.clients, stack, UsageMeter())
        self.store: Store = runs[0]

    def push(self, network: fsd.Network, workers: int) -> Pushed:
        with tempfile.TemporaryDirectory() as folder:
            fsd.partition(network, folder, workers=workers, method="graph")
            manifest = read_manifest(folder)
            pushed = Pushed(manifest, load_plan(folder)[0])
            for name in (*(entry.file for entry in manifest.shards), MANIFEST_FILE):
                self.plans.put(f"plans/{pushed.plan}/{name}", Path(folder, name).read_bytes())
        return pushed

    def event(self, pushed: Pushed, x: sparse.csr_array, channel: str, memory_mb: int, **settings: Any) -> RunEvent:
        """Upload the inputs of a run, and return the event that starts it."""
        run = RunSettings(workers=pushed.manifest.workers, **{"clocks": PATIENT, **settings})
        spec = RunSpec(uuid4().hex, 0, pushed.plan, x.shape[0], x.shape[1], 0.0, run)
        self.store.put(spec.input_key, encode_input(serial_state(x), micro_batch_sizes(x.shape[0], run.micro_batches)))
        return RunEvent(spec, channel, memory_mb)

    def ask(self, event: RunEvent | dict[str, Any]) -> None:
        assert self.stack.functions is not None
        value = event if isinstance(event, dict) else event.to_json()
        self.clients.functions.invoke(
            FunctionName=self.stack.functions.coordinator, InvocationType="Event", Payload=json.dumps(value).encode()
        )

    def status(self, run: str) -> RunStatus | None:
        data = self.store.get(status_key(run))
        return None if data is None else RunStatus.from_bytes(data, status_key(run))

    def wait(self, run: str, timeout_s: float = 1.1 * PATIENT.run_s) -> RunStatus:
        until = time.monotonic() + timeout_s
        while (status := self.status(run)) is None or not status.is_over:
            assert time.monotonic() < until, f"run {run} is not over: {status}"
            time.sleep(0.05)
        return status

    def carry_out(self, event: RunEvent) -> RunStatus:
        self.ask(event)
        return self.wait(event.spec.run)

    def metrics(self, event: RunEvent) -> dict[str, Any]:
        data = self.store.get(metrics_key(event.spec.prefix))
        assert data is not None
        value: dict[str, Any] = json.loads(data)
        return value

    def outputs(self, pushed: Pushed, event: RunEvent, status: RunStatus) -> sparse.csr_array:
        """Combine the results of the ranks, as described in docs/events.md."""
        spec, manifest = event.spec, pushed.manifest
        found = status.results or [self.store.get(spec.result_key(rank)) for rank in range(manifest.workers)]
        sizes = micro_batch_sizes(spec.samples, spec.settings.micro_batches)
        results = []
        for rank, data in enumerate(found):
            assert data is not None
            results.append((data, pushed.partition.rows(manifest.layers - 1, rank)))
        rows = state_rows(joined_outputs(results, sizes, manifest.widths[-1]), "csr")
        assert isinstance(rows, sparse.csr_array)
        return rows

    def close(self) -> None:
        self.store.close()
        self.plans.close()
        self.clients.close()


@contextmanager
def caller(stack: StackSpec) -> Iterator[Caller]:
    made = Caller(stack)
    try:
        yield made
    finally:
        made.close()
