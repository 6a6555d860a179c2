"""The object channel and the S3 store where S3 answers 503 Slow Down: they retry more slowly, until the stall clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from fsd_inference.aws.backends import open_channel
from fsd_inference.channels.base import Expected, Frame, Kind
from fsd_inference.channels.object import ObjectChannel, ObjectSettings
from fsd_inference.config import Clocks, RetrySettings, RunSettings
from fsd_inference.engine.spec import RunSpec
from fsd_inference.errors import ChannelError, StoreError
from fsd_inference.stack_description import StackSpec
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store
from tests.support.message_service import LoopbackHandler, LoopbackService

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
PATIENT = RetrySettings(attempts=2, base_s=0.001, cap_s=0.002, throttled_s=30.0)
FRAME = Frame(Kind.DATA, 0, 0, (1,), b"frame")
WANTED = [Expected(Kind.DATA, 0, 0, 0)]


class _Handler(LoopbackHandler):
    server: _Bucket

    def _refused(self) -> bool:
        with self.server.lock:
            self.server.asked += 1
            refuses = self.server.refusals > 0
            self.server.refusals -= refuses
        if refuses:
            self.answer(503, {}, b"" if self.command == "HEAD" else SLOW_DOWN)
            self.server.refused.set()
        return refuses

    def do_PUT(self) -> None:
        body = self.read_body()
        if not self._refused():
            self.server.objects[self.path] = body
            self.answer(200, {"ETag": '"1"'}, b"")

    def do_GET(self) -> None:
        if self._refused():
            return
        body = self.server.objects.get(self.path)
        if body is None:
            self.answer(404, {}, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        headers = {"ETag": '"1"', "Last-Modified": "Sat, 28 Nov 2026 12:00:00 GMT"}
        whole = {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}
        self.answer(206 if "Range" in self.headers else 200, headers | whole, body)


class _Bucket(LoopbackService):
    """Keeps objects, and refuses the next `refusals` requests."""

    def __init__(self) -> None:
        super().__init__(_Handler, "us-east-1", answer_timeout_s=20.0)
        self.lock = threading.Lock()
        self.objects: dict[str, bytes] = {}
        self.refused = threading.Event()
        self.refusals = self.asked = 0


@pytest.fixture
def bucket() -> Iterator[_Bucket]:
    with _Bucket() as running:
        yield running


@pytest.fixture
def store(bucket: _Bucket) -> Iterator[S3Store]:
    opened = S3Store("b", endpoint_url=bucket.url, region="us-east-1", credentials=Credentials("id", "secret"))
    yield opened
    opened.close()


def channel(store: S3Store, rank: int = 0, retry: RetrySettings = PATIENT, **more: Any) -> ObjectChannel:
    settings = ObjectSettings(retry=retry, abort_every_s=60.0, **more)
    return ObjectChannel([store], run="r", attempt=1, rank=rank, workers=2, settings=settings)


def test_frames_pass_after_more_refusals_than_other_failures_are_allowed(bucket: _Bucket, store: S3Store) -> None:
    sender, receiver = channel(store), channel(store, rank=1)
    bucket.refusals = 9
    sender.send([FRAME]).result(30)
    bucket.refusals = 9
    assert receiver.receive(WANTED, 30.0) == [b"frame"]
    assert bucket.refusals == 0
    usage = store.meter.snapshot()
    assert (usage.requests["s3.put"], usage.requests["s3.get"], usage.retries) == (10, 10, 18)
    sender.close()
    receiver.close()


def test_a_bucket_that_never_admits_is_an_error_that_another_attempt_may_mend(bucket: _Bucket, store: S3Store) -> None:
    bucket.refusals = 10**9
    sender = channel(store, retry=RetrySettings(attempts=2, base_s=0.001, cap_s=0.002, throttled_s=0.1))
    with pytest.raises(ChannelError, match="503 SlowDown") as caught:
        sender.send([FRAME]).result(30)
    assert caught.value.retryable
    assert bucket.asked > 2
    sender.close()


def test_a_store_with_other_retries_leaves_those_of_the_original(bucket: _Bucket, store: S3Store) -> None:
    bucket.refusals = 2
    with pytest.raises(StoreError, match="503"):
        store.retrying(RetrySettings(attempts=1), lambda _: None).get("key")
    assert store.get("key") is None
    assert bucket.asked == 3


def test_closing_ends_a_wait(bucket: _Bucket, store: S3Store) -> None:
    bucket.refusals = 10**9
    sender = channel(store, retry=RetrySettings(base_s=1e6, cap_s=1e6, throttled_s=1e9))
    sent = sender.send([FRAME])
    assert bucket.refused.wait(30)
    sender.close()
    with pytest.raises(ChannelError, match="the channel is closed"):
        sent.result(30)


def test_the_stall_clock_of_a_run_is_the_limit(store: S3Store) -> None:
    spec = RunSpec("a" * 32, 0, "b" * 32, 1, 1, 0.0, RunSettings(workers=2, clocks=Clocks(stall_s=7.0)))
    stack = StackSpec("s", None, "us-east-1", (), ("b",), "n")
    opened = open_channel(None, stack, [store], "object", spec=spec, rank=0, lane=None)  # type: ignore[arg-type]
    assert isinstance(opened, ObjectChannel)
    assert opened._settings.retry.throttled_s == 7.0
    opened.close()
