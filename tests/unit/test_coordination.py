"""Coordinators whose services fall silent at any request, and the heartbeats of others."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from fsd_inference.aws import coordination, heartbeat, orphans, watching
from fsd_inference.aws.concurrency import Concurrency
from fsd_inference.aws.coordination import Coordination, Resources
from fsd_inference.aws.events import RankEvent, RunEvent
from fsd_inference.aws.status import heartbeat_key
from fsd_inference.config import Clocks, RunSettings
from fsd_inference.deadlines import NoTimeLeftError, left_s
from fsd_inference.engine.ending import Ended
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import StoreError
from fsd_inference.rank_report import RankReport
from fsd_inference.stack_description import FunctionsSpec, LaneSpec, StackSpec, WorkerFunction
from fsd_inference.store.base import ObjectInfo, StoredObject
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import Usage, UsageMeter
from tests.support.processes import wait_until

RUN = "0123456789abcdef" * 2
RANKS = 3
FUNCTION = WorkerFunction(512, "arn:aws:lambda:us-east-1:000000000000:function:s-worker-512")
STACK = StackSpec(
    "s",
    None,
    "us-east-1",
    (LaneSpec(("arn:aws:sns:us-east-1:0:t",), tuple(f"http://q{rank}" for rank in range(RANKS))),),
    ("runs",),
    "networks",
    functions=FunctionsSpec("arn:aws:lambda:us-east-1:0:function:s-coordinator", (FUNCTION,), "http://failures", 900),
    purge_settle_s=0.0,
)
ENDS_S = 100.0
"""Seconds after which Lambda ends the coordinator."""


class Services:
    """S3, SQS and Lambda in memory, which answer no more after some number of requests.

    A request without an answer ends at its deadline, which is noted; the test does not wait for it.
    """

    def __init__(self, answers: float) -> None:
        self.answers = answers
        self.store = Silent(self)
        self.asked = itertools.count()
        self.waits: list[float] = []  # from a request without an answer until the coordinator's end

    def asked_for(self, silence: Exception) -> None:
        if next(self.asked) >= self.answers:
            self.waits.append(time.monotonic() + left_s())
            raise silence

    # --- clients of SQS and Lambda ---

    def receive_message(self, **_: Any) -> dict[str, Any]:
        self.asked_for(NoTimeLeftError())
        time.sleep(0.002)
        return {}

    def purge_queue(self, **_: Any) -> None:
        self.asked_for(NoTimeLeftError())

    def invoke(self, Payload: bytes, **_: Any) -> None:
        """Have all ranks report at once that they have no rows."""
        self.asked_for(NoTimeLeftError())
        spec = RankEvent.from_json(json.loads(Payload)).spec
        for rank in range(RANKS):
            MemoryStore.put(self.store, spec.result_key(rank), b"")
            MemoryStore.put(self.store, spec.report_key(rank), json.dumps(RankReport(rank).to_json()).encode())


class Silent(MemoryStore):
    """A store that may not answer."""

    def __init__(self, services: Services) -> None:
        super().__init__()
        self._services = services

    def _ask(self) -> None:
        self._services.asked_for(StoreError("no answer by the deadline"))

    def get(self, key: str) -> bytes | None:
        self._ask()
        return super().get(key)

    def get_object(self, key: str) -> StoredObject | None:
        self._ask()
        return super().get_object(key)

    def put(self, key: str, data: bytes) -> str:
        self._ask()
        return super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> str | None:
        self._ask()
        return super().put_if_absent(key, data)

    def put_if_match(self, key: str, data: bytes, etag: str) -> str | None:
        self._ask()
        return super().put_if_match(key, data, etag)

    def stat(self, key: str) -> ObjectInfo | None:
        self._ask()
        return super().stat(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._ask()
        return super().list(prefix)

    def delete(self, keys: Any) -> None:
        self._ask()
        super().delete(keys)


def resources(services: Services) -> Resources:
    clients: Any = SimpleNamespace(sqs=services, functions=services)
    return Resources(
        clients,
        STACK,
        "57ac",
        [services.store],
        UsageMeter(),
        lambda _: None,
        "c0de",
        lambda _: Concurrency(512, 6, None),
        {FUNCTION.arn},
    )


def event(channel: str = "queue") -> RunEvent:
    settings = RunSettings(workers=RANKS, clocks=Clocks(start_s=5, stall_s=5, run_s=2 * ENDS_S))
    return RunEvent(RunSpec(RUN, 0, "b" * 32, 10, 4, 0.0, settings), channel, 512)


def coordinator(services: Services, of: RunEvent) -> Coordination:
    return Coordination(resources(services), of, ends=time.time() + ENDS_S, before=Usage(), init_s=0.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the plan, and leave no time to ranks that do not report."""
    monkeypatch.setattr(coordination, "load_manifest", lambda *_: SimpleNamespace(features=4, layers=3))
    monkeypatch.setattr(watching, "_QUIET_S", 0.01)
    monkeypatch.setattr(orphans, "open_channel", lambda *_, **__: SimpleNamespace(abort=print, close=list))


@pytest.mark.parametrize("channel", ["queue", "object"])
def test_no_request_of_a_coordinator_may_wait_beyond_its_end(channel: str) -> None:
    """Services that fall silent let it end, whichever request is the first without an answer."""
    ended = 0
    for answers in itertools.count():
        services = Services(answers)
        ends = time.monotonic() + ENDS_S
        try:
            status = coordinator(services, event(channel=channel)).carry_out()
        except StoreError:  # not even the status could be written
            status = None
        if not services.waits:
            assert status is not None
            assert status.state == "done"
            break
        assert max(services.waits) <= ends + 0.1  # computing takes time too
        ended += 1
    assert ended >= 10


def test_a_short_attempt_writes_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(float("inf"))
    monkeypatch.setattr(Coordination, "_run", lambda *_: Ended(1.0, [], None))
    monkeypatch.setattr(Coordination, "_small_results", lambda *_: None)
    coordinator(services, event()).carry_out()
    assert not [info.key for info in services.store.list("runs/") if info.key.endswith("heartbeat")]


def test_the_coordinator_of_a_longer_attempt_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services(float("inf"))

    def run(*_: object) -> Ended:
        key = heartbeat_key(event().spec.prefix)
        wait_until(lambda: int(MemoryStore.get(services.store, key) or 0) > 2, "beats")
        return Ended(1.0, [], None)

    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.01)
    monkeypatch.setattr(Coordination, "_run", run)
    monkeypatch.setattr(Coordination, "_small_results", lambda *_: None)
    status = coordinator(services, event()).carry_out()
    assert status is not None
    assert (status.state, status.error) == ("done", None)
