"""What clients, functions and ranks read of each other, with a value replaced or bytes damaged, is read or refused."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsd_inference.aws import leases
from fsd_inference.aws.events import RankEvent, RunEvent
from fsd_inference.aws.failures import parse_coordinator_failure, parse_failure, parse_reported, reported_failure
from fsd_inference.aws.hidden_messages import HiddenMessages
from fsd_inference.aws.metrics import RunMetrics
from fsd_inference.aws.status import RunStatus
from fsd_inference.channels.base import Kind
from fsd_inference.config import RunSettings
from fsd_inference.engine.checkpoints import pack_checkpoint, unpack_checkpoint
from fsd_inference.engine.gather import encode, merge_encoded
from fsd_inference.engine.inputs import encode_input, read_input
from fsd_inference.engine.messages import Arrived, Finish, Started
from fsd_inference.engine.repeating import parse_repeat
from fsd_inference.engine.serial import serial_state
from fsd_inference.engine.spec import RunSpec
from fsd_inference.engine.tree import Tree
from fsd_inference.engine.worker import Worker, abort_payload
from fsd_inference.errors import FileFormatError, FsdError, LaneError, RunError, StallError
from fsd_inference.forecast.workload import parse_trace
from fsd_inference.launch.spec import LAUNCH_FILE, LaunchSpec
from fsd_inference.rank_report import RankReport
from fsd_inference.report.verification import Comparison, StackNames, Verification, VerifiedRun
from fsd_inference.session.pushing import find_pushed, index_key
from fsd_inference.store.memory import MemoryStore
from fsd_inference.usage import Usage
from tests.support.damage import damaged
from tests.support.hostile import changed
from tests.support.little_memory import little_memory
from tests.support.reports import made_up

ID = "0123456789abcdef" * 2
SPEC = RunSpec(ID, 1, ID, 100, 16, 0.0, RunSettings(workers=4), first_sample=300)
RANK_EVENT = RankEvent(SPEC, 1, 0, "queue", 1769, 0, "c0de", "57ac").to_json()
RUN_EVENT = RunEvent(SPEC, "queue", 1769, 12.0).to_json()
ERROR = StallError("no frame from rank 0", rank=0)
STATUS = RunStatus(ID, 0, ID, "object", 4, 10, "failed", 1.5, 120, 2.5, 3.5, ERROR, (b"", b"\x00")).to_json()
REPORT = made_up(2, layers=2).to_json()["ranks"][0]
USED = Usage(Counter({"s3.get": 2}), Counter({"s3.get": 2})).to_json()
METRICS = {
    "version": 1, "memory_mb": 512, "ranks": [REPORT], "coordinator": {"started": 1.0, "ended": 2.0, "usage": USED}
}  # fmt: skip
VERIFICATION = Verification(
    StackNames("s", "us-east-1", ("f",), ("t",), ("q",)),
    0.05,
    began=1.0,
    ended=2.0,
    runs=[VerifiedRun("queue", 2, 0.01, "done", identical=True, comparisons=[Comparison("s3.get", 4, 6)])],
    totals={"invocations": 5.0},
    bill=[Comparison("sqs.receive", 3, None)],
).to_json()
FAILURE = {
    "requestContext": {"condition": "RetriesExhausted"},
    "requestPayload": RANK_EVENT,
    "responsePayload": {"errorType": "Runtime.ExitError", "errorMessage": "signal: killed"},
}
LEASE = json.loads(leases.lease_data("held", ID, 0, 30.0, HiddenMessages(1.0, 2, 3)))


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """A reader that takes what a file claims raises MemoryError, which no test expects."""
    with little_memory():
        yield


def lease(text: str) -> object:
    return leases._parse(text.encode(), "lanes/0000.json", "tag", datetime.now(UTC))


def launch(text: str, folder: Path) -> object:
    (folder / LAUNCH_FILE).write_text(text)
    return LaunchSpec.read(folder)


def pushed(text: str) -> object:
    plans = MemoryStore()
    plans.put(index_key(bytes(16), 2), text.encode())
    return find_pushed(plans, bytes(16), 2)


DOCUMENTS: dict[str, tuple[Any, Callable[[str], object], type[Exception]]] = {
    "event of a run": (RUN_EVENT, lambda text: RunEvent.from_json(json.loads(text)), FsdError),
    "event of a rank": (RANK_EVENT, lambda text: RankEvent.from_json(json.loads(text)), FsdError),
    "status": (STATUS, lambda text: RunStatus.from_bytes(text.encode(), "status/x"), FsdError),
    "specification": (json.loads(SPEC.to_json()), RunSpec.from_json, FileFormatError),
    "report of a rank": (REPORT, lambda text: RankReport.from_json(json.loads(text)), FileFormatError),
    "metrics": (METRICS, lambda text: RunMetrics.from_bytes(text.encode(), "metrics"), FileFormatError),
    "lease": (LEASE, lease, LaneError),
    "verification": (VERIFICATION, lambda text: Verification.from_json(json.loads(text)), FileFormatError),
    "pushed plan": (
        {"format": "fsd-pushed", "version": 1, "plan": "0" * 32, "method": "block", "seed": 1, "pushed": "2026"},
        pushed,
        FileFormatError,
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents(name: str) -> None:
    value, read, error = DOCUMENTS[name]
    read(json.dumps(value))
    tried = refused = 0
    for _, text in changed(value):
        tried += 1
        try:
            read(text)
        except error:
            refused += 1
    assert 0 < refused < tried


def test_launch_files(tmp_path: Path) -> None:
    LaunchSpec(SPEC, "local").write(tmp_path)
    value = json.loads((tmp_path / LAUNCH_FILE).read_text())
    for _, text in changed(value):
        with suppress(FileFormatError):
            launch(text, tmp_path)


def test_records_of_failures() -> None:
    assert parse_failure(json.dumps(FAILURE)) is not None
    assert parse_coordinator_failure(json.dumps(FAILURE | {"requestPayload": RUN_EVENT})) is not None
    for value, parse in (
        (FAILURE, parse_failure),
        (FAILURE | {"requestPayload": RUN_EVENT}, parse_coordinator_failure),
        (json.loads(reported_failure(ERROR)), parse_reported),
    ):
        for _, text in changed(value):
            parse(text.encode())


def test_payloads_of_aborts() -> None:
    for _, text in changed(json.loads(abort_payload(ERROR))):
        worker = Worker(
            rank=1, tree=Tree(2, 1), micro_batches=1, samples=4, overlap=True, clocks=SPEC.settings.clocks, deadline=9.0
        )
        worker.handle(Started(), 0.0)
        (finish,) = worker.handle(Arrived(Kind.ABORT, 0, 0, 0, 0, True, text.encode()), 1.0)
        assert isinstance(finish, Finish)
        assert isinstance(finish.error, RunError)


# --- bytes ------------------------------------------------------------------------------------------------------------

CHECKPOINT = pack_checkpoint([1, 2**64 - 1], [b"one frame", b"another"])
INPUT = encode_input(serial_state(np.eye(6, dtype=np.float32)), (4, 2))
SUMMARY = encode((np.ones(3, np.float32), np.arange(3, dtype=np.int32)))


def read_batch(data: bytes) -> object:
    store = MemoryStore()
    store.put("input", data)
    return list(read_input(store, "input", np.arange(6, dtype=np.uint32), (4, 2), 6))


BYTES: dict[str, tuple[bytes, Callable[[bytes], object], type[Exception]]] = {
    "checkpoint": (CHECKPOINT, unpack_checkpoint, FileFormatError),
    "input of a run": (INPUT, read_batch, FileFormatError),
    "summary": (SUMMARY, lambda data: merge_encoded([SUMMARY, data], 3), ValueError),
    "request to repeat": (bytes(8), parse_repeat, AssertionError),
    "trace": (b"seconds,samples\n1.5,3\n86399,7\n", lambda data: parse_trace(data.decode("latin-1"), "t"), FsdError),
}


@pytest.mark.parametrize("name", BYTES)
def test_damaged_bytes(name: str) -> None:
    valid, read, error = BYTES[name]
    read(valid)

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(damaged(valid))
    def attempt(data: bytes) -> None:
        with suppress(error):
            read(data)

    attempt()


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=40))
def test_any_bytes(data: bytes) -> None:
    for valid, read, error in BYTES.values():
        for tried in (data, valid[:12] + data):
            with suppress(error):
                read(tried)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_memory_is_limited() -> None:
    with pytest.raises(MemoryError):
        bytes(10**9)
