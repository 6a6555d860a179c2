"""The S3 store: its request counts compared with the proxy's, with and without faults, and the resulting errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.config import RetrySettings
from fsd_inference.errors import AccessDeniedError, SettingError, StoreError
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store

pytestmark = pytest.mark.emulator

QUICK = RetrySettings(attempts=4, base_s=0.001, cap_s=0.01)


def connect(endpoint_url: str, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        "runs",
        endpoint_url=endpoint_url,
        region="us-east-1",
        credentials=Credentials("test", "test"),
        retry=QUICK,
        timeout_s=10,
    )


@pytest.fixture
def bucket(new_bucket: Callable[[], str]) -> str:
    return new_bucket()


@pytest.fixture
def store(proxy: FaultProxy, bucket: str) -> Iterator[S3Store]:
    opened = connect(proxy.url, bucket)
    yield opened
    opened.close()


def use_everything(store: S3Store) -> None:
    etag = store.put("a", b"0123456789")
    store.put_if_absent("a", b"")
    store.put_if_absent("b", b"x")
    store.put_if_match("a", b"0123456789" * 50_000, etag)
    store.put_if_match("a", b"", etag)
    store.put_if_match("gone", b"", etag)
    store.get("a")
    store.get("gone")
    store.get_range("a", 5, 5)
    store.get_range("a", 600_000, 5)
    store.get_range("a", 1, 0)
    store.get_ranges("a", [(0, 10), (20, 10), (300_000, 10)])
    store.get_ranges("gone", [(0, 10), (300_000, 10)])
    store.stat("a")
    store.stat("gone")
    assert len(list(store.list(""))) == 2
    store.delete(["a", "b", "gone"])


USED = {"s3.put": 6, "s3.get": 8, "s3.head": 3, "s3.list": 1, "s3.delete": 1}


def test_counts_equal_the_proxys(store: S3Store, proxy: FaultProxy) -> None:
    use_everything(store)
    usage = store.meter.snapshot()
    assert dict(usage.requests) == dict(proxy.counts) == USED
    assert usage.billed_units == usage.requests
    assert (usage.retries, usage.misses) == (0, 4)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=500, code="InternalError"),
        Fault(status=429),
        Fault(status=409, code="ConditionalRequestConflict"),
        Fault(status=400, code="RequestTimeout"),
        Fault(reset=True),
    ],
    ids=str,
)
def test_counts_equal_the_proxys_when_each_kind_is_retried(store: S3Store, proxy: FaultProxy, fault: Fault) -> None:
    # Two requests in a row of each kind break, then all go through. HEAD answers have no body and so no code.
    proxy.hook = lambda request: (
        fault if request.number < 2 and (fault.status != 400 or request.kind != "s3.head") else None
    )
    use_everything(store)
    usage = store.meter.snapshot()
    assert dict(usage.requests) == dict(proxy.counts)
    assert usage.retries == proxy.counts.total() - sum(USED.values())
    assert usage.retries == 2 * (len(USED) - (fault.status == 400))


def test_a_body_that_breaks_off_is_read_again(store: S3Store, proxy: FaultProxy) -> None:
    data = b"0123456789" * 100_000
    store.put("a", data)
    proxy.break_first(Fault(cut_answer=True), times=2, kind="s3.get")
    assert store.get("a") == data
    assert store.meter.snapshot().requests["s3.get"] == proxy.counts["s3.get"] == 3
    assert store.meter.snapshot().retries == 2


def test_lists_are_paged_and_each_page_is_counted(
    store: S3Store, proxy: FaultProxy, bucket: str, emulator_url: str
) -> None:
    direct = connect(emulator_url, bucket)  # what is only there to be listed need not pass the proxy
    for count, pages in ((999, 1), (1000, 2), (1001, 2), (2005, 3)):
        present = sum(1 for _ in store.list("many/"))
        for number in range(present, count):
            direct.put(f"many/{number:05}", b"")
        proxy.reset_counts()
        before = store.meter.snapshot().requests["s3.list"]
        keys = [info.key for info in store.list("many/")]
        assert keys == [f"many/{number:05}" for number in range(count)]
        assert store.meter.snapshot().requests["s3.list"] - before == proxy.counts["s3.list"] == pages
    proxy.reset_counts()
    before = store.meter.snapshot().requests["s3.list"]
    proxy.hook = lambda request: Fault(status=503) if request.kind == "s3.list" and request.number in {1, 3} else None
    assert sum(1 for _ in store.list("many/")) == 2005
    assert store.meter.snapshot().requests["s3.list"] - before == proxy.counts["s3.list"] == 5
    store.delete(info.key for info in store.list("many/"))
    assert store.meter.snapshot().requests["s3.delete"] == proxy.counts["s3.delete"] == 3
    assert list(store.list("many/")) == []
    direct.close()


@pytest.mark.parametrize("broken", [1, 2])
def test_a_conditional_write_whose_answer_was_lost_has_won(store: S3Store, proxy: FaultProxy, broken: int) -> None:
    proxy.break_first(Fault(lose_answer=True), times=broken, kind="s3.put")
    etag = store.put_if_absent("claim", b"mine")
    found = store.get_object("claim")
    assert found is not None
    assert found.etag == etag
    proxy.break_first(Fault(lose_answer=True), times=broken, kind="s3.put")
    second = store.put_if_match("claim", b"mine again", found.etag)
    assert second is not None
    assert store.get("claim") == b"mine again"
    assert dict(store.meter.snapshot().requests) == dict(proxy.counts)


def test_a_conditional_write_that_was_retried_can_lose(store: S3Store, proxy: FaultProxy) -> None:
    etag = store.put("claim", b"theirs")
    proxy.break_first(Fault(reset=True), times=1, kind="s3.put")
    assert store.put_if_absent("claim", b"theirs") is None
    store.put("claim", b"new")
    proxy.break_first(Fault(status=503), times=1, kind="s3.put")
    assert store.put_if_match("claim", b"mine", etag) is None
    assert store.get("claim") == b"new"


def test_attempts_are_bounded(store: S3Store, proxy: FaultProxy) -> None:
    proxy.hook = lambda request: Fault(status=503)
    with pytest.raises(
        StoreError, match=r"cannot get a/b in bucket bucket-\d+, folder runs: .* 503 SlowDown"
    ) as caught:
        store.get("a/b")
    assert caught.value.retryable
    assert store.meter.snapshot().requests["s3.get"] == proxy.counts["s3.get"] == QUICK.attempts
    assert store.meter.snapshot().retries == QUICK.attempts - 1


def test_refused_is_not_absent(store: S3Store, proxy: FaultProxy) -> None:
    proxy.hook = lambda request: Fault(status=403, code="AccessDenied")
    for read in (store.get, store.stat, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(AccessDeniedError, match="s3:ListBucket"):
            read("a")
    for write in (store.put, store.put_if_absent):
        with pytest.raises(AccessDeniedError, match="cannot put a"):
            write("a", b"")
    assert proxy.counts.total() == 5  # none is repeated
    assert not store.meter.snapshot().retries


def test_other_failures_are_not_repeated(store: S3Store, proxy: FaultProxy) -> None:
    proxy.hook = lambda request: Fault(status=400, code="InvalidArgument")
    with pytest.raises(StoreError, match="400 InvalidArgument") as caught:
        store.put("a", b"")
    assert not caught.value.retryable
    assert proxy.counts.total() == 1


@pytest.mark.parametrize(("code", "requests"), [("InternalError", QUICK.attempts), ("AccessDenied", 1)])
def test_a_key_that_could_not_be_deleted(store: S3Store, proxy: FaultProxy, code: str, requests: int) -> None:
    # DeleteObjects answers 200 and names the keys that failed.
    error = f"<Error><Key>runs/b</Key><Code>{code}</Code><Message>no</Message></Error>"
    body = f"<DeleteResult><Deleted><Key>runs/a</Key></Deleted>{error}</DeleteResult>"
    proxy.hook = lambda request: Fault(status=200, body=body)
    with pytest.raises(StoreError, match=rf"cannot delete a and 1 more in bucket .*{code}") as caught:
        store.delete(["a", "b"])
    assert isinstance(caught.value, AccessDeniedError) == (code == "AccessDenied")
    assert store.meter.snapshot().requests["s3.delete"] == proxy.counts["s3.delete"] == requests


def test_a_missing_bucket_is_an_error(emulator_url: str) -> None:
    store = connect(emulator_url, "no-such-bucket")
    for use in (lambda: store.get("a"), lambda: store.put("a", b""), lambda: store.put_if_match("a", b"", "tag")):
        with pytest.raises(StoreError, match=r"cannot .* in bucket no-such-bucket.*404 NoSuchBucket"):
            use()
    with pytest.raises(StoreError, match="404"):
        list(store.list(""))
    store.close()


def test_nobody_there() -> None:
    store = connect("http://127.0.0.1:9", "bucket")
    with pytest.raises(StoreError, match="cannot get a in bucket bucket"):
        store.get("a")
    assert store.meter.snapshot().requests["s3.get"] == QUICK.attempts
    store.close()


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://host", "http://", "http://[", "http://host:no", "http://a b"])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(SettingError, match=r"is not an http\(s\) URL of a service"):
        connect(url, "bucket")


class _WholeObjects(BaseHTTPRequestHandler):
    """A service that is like S3, but knows no ranges: it answers with the whole object."""

    protocol_version = "HTTP/1.1"
    data = bytes(range(200))
    asked: ClassVar[list[str | None]]

    def do_GET(self) -> None:
        self.asked.append(self.headers["Range"])
        is_there = self.path == "/bucket/runs/key"
        self.send_response(200 if is_there else 404)
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(self.data) if is_there else 0))
        self.end_headers()
        self.wfile.write(self.data if is_there else b"")

    def log_message(self, *_: object) -> None:
        pass


def test_ranges_that_are_answered_whole() -> None:
    """They are cut out of the answer, and no more are asked for; all is counted."""

    class Handler(_WholeObjects):
        asked: ClassVar[list[str | None]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = connect(f"http://127.0.0.1:{server.server_port}", "bucket")
        data = _WholeObjects.data
        assert store.get_range("key", 10, 20) == data[10:30]
        assert store.get_range("key", 190, 20) == data[190:]
        assert store.get_range("key", 500, 20) == b""
        assert store.get_range("absent", 0, 5) is None
        assert store.get_ranges("key", [(0, 3), (150, 4), (7, 0)]) == [data[:3], data[150:154], b""]
        assert store.get_ranges("absent", [(0, 3)]) is None
        assert store.meter.snapshot().requests["s3.get"] == len(Handler.asked) == 7
        assert [asked for asked in Handler.asked if asked] == ["bytes=10-29"]
        store.close()
        server.shutdown()


def test_requests_are_signed_with_the_keys_that_are_valid_now(proxy: FaultProxy, new_bucket: Callable[[], str]) -> None:
    signed = []

    def hook(request: Request) -> None:
        signed.append(request.headers["authorization"].partition("Credential=")[2].partition("/")[0])
        assert request.headers["x-amz-security-token"] == "session"

    proxy.hook = hook
    store = S3Store(
        new_bucket(),
        endpoint_url=proxy.url,
        region="us-east-1",
        credentials=lambda: Credentials("renewed", "secret", "session"),
    )
    store.put("a", b"x")
    assert store.get("a") == b"x"
    store.close()
    assert signed == ["renewed", "renewed"]


@pytest.mark.parametrize("code", ["AccessDenied", ""])
def test_absent_keys_that_answer_403_are_explained(store: S3Store, proxy: FaultProxy, code: str) -> None:
    """What S3 answers for absent keys to who may not list the bucket."""
    proxy.hook = lambda request: Fault(status=403, code=code) if "gone" in request.path else None
    for read in (store.get, store.stat, store.get_object, lambda key: store.get_range(key, 0, 5)):
        with pytest.raises(AccessDeniedError) as caught:
            read("gone")
        message = str(caught.value)
        assert "the role may not list the bucket: grant s3:ListBucket (S3 answers 403 instead of 404" in message
        assert "\n" not in message
        assert not caught.value.retryable
