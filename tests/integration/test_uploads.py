"""Uploads of files to a stack's buckets: slow lines, lines that die, and uploads that are continued."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mypy_boto3_s3 import S3Client

import fsd_inference as fsd
from fsd_inference.aws import bucket as bucket_module
from fsd_inference.aws import clients as clients_module
from fsd_inference.aws.clients import Clients
from fsd_inference.aws.provision import StackSettings, create_stack, delete_stack
from fsd_inference.aws.stack import save_stack
from fsd_inference.chaos.proxy import Fault, FaultProxy, Request
from fsd_inference.config import RetrySettings
from fsd_inference.engine.spec import plan_folder
from fsd_inference.errors import AccessDeniedError, StoreError
from fsd_inference.partitioning import partition
from fsd_inference.store import Store
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store
from tests.support.cli import fsd_in
from tests.support.processes import wait_until
from tests.support.slow_line import SlowLine

pytestmark = pytest.mark.emulator

PART = 100_000
OWNER = "000000000000"
QUICK = RetrySettings(attempts=3, base_s=0.001, cap_s=0.01)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket_module, "PART_BYTES", PART)


@pytest.fixture
def bucket(new_bucket: Callable[[], str]) -> str:
    return new_bucket()


@pytest.fixture
def open_at(bucket: str) -> Iterator[Callable[[str], Store]]:
    """Open the bucket, in a folder, at an endpoint."""
    opened: list[Store] = []
    made: list[Clients] = []

    def open_bucket(url: str) -> Store:
        made.append(Clients(url, emulated=True))
        opened.append(made[-1].open_bucket(bucket, "folder", owner=OWNER, retry=QUICK))
        return opened[-1]

    yield open_bucket
    for store in opened:
        store.close()
    for clients in made:
        clients.close()


@pytest.fixture
def store(open_at: Callable[[str], Store], proxy: FaultProxy) -> Store:
    return open_at(proxy.url)


def file_of(folder: Path, size: int, seed: int = 0) -> Path:
    path = folder / f"file-{size}-{seed}"
    path.write_bytes(hashlib.shake_128(bytes([seed])).digest(size))
    return path


class Advance:
    """Adds up by how much an upload has advanced."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self.total += count


def part_of(request: Request) -> int | None:
    """Return the number of the part that a request sends."""
    query = parse_qs(urlsplit(request.path).query)
    return int(query["partNumber"][0]) if request.method == "PUT" and "partNumber" in query else None


def breaks_at(proxy: FaultProxy, numbers: set[int], fault: Fault) -> list[int]:
    """Inject a fault into the given parts, and return a list that will have the numbers of all parts that are sent."""
    sent: list[int] = []

    def hook(request: Request) -> Fault | None:
        number = part_of(request)
        if number is not None:
            sent.append(number)
        return fault if number in numbers else None

    proxy.hook = hook
    return sent


def unfinished(s3: S3Client, bucket: str) -> list[str]:
    return [upload["UploadId"] for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        (0, {"s3.put": 1}),
        (PART, {"s3.put": 1}),
        (PART + 1, {"s3.list": 1, "s3.put": 1 + 2 + 1}),
        (5 * PART, {"s3.list": 1, "s3.put": 1 + 5 + 1}),
    ],
)
def test_a_file_arrives_and_its_requests_are_counted(
    store: Store, proxy: FaultProxy, tmp_path: Path, size: int, requests: dict[str, int]
) -> None:
    path, advance, owners = file_of(tmp_path, size), Advance(), []

    def hook(request: Request) -> None:
        owners.append(request.headers.get("x-amz-expected-bucket-owner"))

    proxy.hook = hook
    assert store.put_file("a/b", path, advance) == advance.total == size
    assert set(owners) == {OWNER}
    assert dict(store.meter.snapshot().requests) == dict(proxy.counts) == requests
    assert store.get("a/b") == path.read_bytes()


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(reset=True), Fault(lose_answer=True)], ids=str)
def test_parts_that_fail_are_sent_again(store: Store, proxy: FaultProxy, tmp_path: Path, fault: Fault) -> None:
    path, advance, broken = file_of(tmp_path, 4 * PART), Advance(), set()

    def hook(request: Request) -> Fault | None:
        number = part_of(request)
        if number not in {2, 3} or number in broken:
            return None
        broken.add(number)
        return fault

    proxy.hook = hook
    assert store.put_file("a", path, advance) == advance.total == 4 * PART
    assert store.get("a") == path.read_bytes()
    usage = store.meter.snapshot()
    assert dict(usage.requests) == dict(proxy.counts)
    assert usage.retries == 2


def test_a_slow_line_takes_its_time(
    open_at: Callable[[str], Store], emulator_url: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request takes several times the clock that ends a request which stalls."""
    clock_s = 2.0
    monkeypatch.setattr(clients_module, "_STALL_S", clock_s)
    path = file_of(tmp_path, 100 * PART)
    with SlowLine(emulator_url, bytes_per_s=2e6) as line:
        whole = S3Store(
            bucket,
            endpoint_url=line.url,
            region="us-east-1",
            credentials=Credentials("test", "test"),
            retry=RetrySettings(attempts=1),
            timeout_s=clock_s,
        )
        with pytest.raises(StoreError, match="cannot put a"):
            whole.put("a", path.read_bytes())
        whole.close()
        monkeypatch.setattr(bucket_module, "PART_BYTES", 50 * PART)
        assert open_at(line.url).put_file("a", path, lambda _: None) == 100 * PART
    assert open_at(emulator_url).get("a") == path.read_bytes()


def test_a_line_that_dies_ends_the_upload_and_another_goes_on(
    open_at: Callable[[str], Store],
    emulator_url: str,
    bucket: str,
    s3_client: S3Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients_module, "_STALL_S", 0.4)
    path, advance = file_of(tmp_path, 40 * PART), Advance()
    with SlowLine(emulator_url, bytes_per_s=4e6) as line:

        def die(count: int) -> None:
            advance(count)
            line.is_dead = line.is_dead or advance.total > 25 * PART

        with pytest.raises(StoreError, match=r"cannot put part \d+ of a in bucket .*(timeout|closed)") as caught:
            open_at(line.url).put_file("a", path, die)
    assert caught.value.retryable
    (upload,) = unfinished(s3_client, bucket)
    arrived = s3_client.list_parts(Bucket=bucket, Key="folder/a", UploadId=upload)["Parts"]
    assert 0 < len(arrived) < 40
    assert open_at(emulator_url).put_file("a", path, lambda _: None) == 40 * PART - sum(p["Size"] for p in arrived)
    assert open_at(emulator_url).get("a") == path.read_bytes()
    assert unfinished(s3_client, bucket) == []


def test_an_upload_is_continued_with_what_is_missing(
    store: Store, open_at: Callable[[str], Store], proxy: FaultProxy, tmp_path: Path
) -> None:
    path = file_of(tmp_path, 6 * PART + 1)
    breaks_at(proxy, {3, 7}, Fault(status=403, code="AccessDenied"))
    with pytest.raises(AccessDeniedError, match=r"put part \d of a .* the caller's policy must allow s3:PutObject"):
        store.put_file("a", path, lambda _: None)
    store.close()  # when no more parts are under way
    sent, advance, later = breaks_at(proxy, set(), Fault()), Advance(), open_at(proxy.url)
    assert later.put_file("a", path, advance) == PART * len(set(sent) - {7}) + 1
    assert {3, 7} <= set(sent) < {1, 2, 3, 4, 5, 6, 7}
    assert advance.total == 6 * PART + 1
    assert later.get("a") == path.read_bytes()
    assert later.put_file("a", path, lambda _: None) == 6 * PART + 1  # a complete upload is not continued


def test_an_upload_of_other_content_is_aborted(
    store: Store, proxy: FaultProxy, bucket: str, s3_client: S3Client, tmp_path: Path
) -> None:
    first, second = (file_of(tmp_path, 3 * PART, seed) for seed in (1, 2))
    breaks_at(proxy, {3}, Fault(status=403, code="AccessDenied"))
    with pytest.raises(AccessDeniedError):
        store.put_file("a", first, lambda _: None)
    proxy.hook = None
    assert len(unfinished(s3_client, bucket)) == 1
    assert store.put_file("a", second, lambda _: None) == 3 * PART
    assert store.get("a") == second.read_bytes()
    assert unfinished(s3_client, bucket) == []
    assert store.meter.snapshot().requests["s3.delete"] == proxy.counts["s3.delete"] == 1


def test_an_upload_that_another_push_has_completed(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    path = file_of(tmp_path, 2 * PART)
    breaks_at(proxy, {2}, Fault(status=404, code="NoSuchUpload"))
    with pytest.raises(StoreError, match=r"the upload of a to bucket .* was aborted by someone else; push again"):
        store.put_file("a", path, lambda _: None)
    store.put("a", path.read_bytes())
    assert store.put_file("a", path, lambda _: None) == 0


@pytest.mark.parametrize(
    ("query", "action"), [("uploads", "s3:ListBucketMultipartUploads"), ("uploadId", "s3:ListMultipartUploadParts")]
)
def test_who_may_not_look_for_uploads_is_told_what_is_missing(
    store: Store, proxy: FaultProxy, tmp_path: Path, query: str, action: str
) -> None:
    path = file_of(tmp_path, 2 * PART)
    breaks_at(proxy, {2}, Fault(status=403, code="AccessDenied"))
    with pytest.raises(AccessDeniedError):
        store.put_file("a", path, lambda _: None)

    def hook(request: Request) -> Fault | None:
        found = query in parse_qs(urlsplit(request.path).query, keep_blank_values=True)
        return Fault(status=403, code="AccessDenied") if found and request.method == "GET" else None

    proxy.hook = hook
    with pytest.raises(AccessDeniedError, match=f"cannot list .* of a .*; the caller's policy must allow {action}$"):
        store.put_file("a", path, lambda _: None)


def test_whoever_follows_an_upload_can_end_it(store: Store, proxy: FaultProxy, tmp_path: Path) -> None:
    advance = Advance()

    def stop(count: int) -> None:
        advance(count)
        if advance.total > PART:
            raise StoreError("enough", retryable=False)

    with pytest.raises(StoreError, match=r"^enough$"):
        store.put_file("a", file_of(tmp_path, 30 * PART), stop)
    store.close()
    assert proxy.counts["s3.put"] < 30
    assert store.meter.snapshot().retries == 0


PROGRAM = f"""
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it may be ignored
import fsd_inference.aws.bucket as bucket
bucket.PART_BYTES = {PART}
from fsd_inference.cli.main import main
main()
"""


def test_a_push_that_was_interrupted_goes_on_with_what_arrived(
    emulator_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.chdir(tmp_path)
    network = fsd.random_network([2000, 2000, 2000], connections=200, seed=1)
    manifest = partition(network, tmp_path / "shards", workers=2, method="block", seed=0)
    clients = Clients(emulator_url, emulated=True)
    stack = create_stack(clients, StackSettings("slow", ranks=2))
    key = plan_folder(manifest.plan_digest.hex())
    try:
        with SlowLine(emulator_url, bytes_per_s=600_000) as line:
            save_stack(replace(stack, endpoint_url=line.url), tmp_path / "stack.json")
            push = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "push", "shards", "--stack", "stack.json"],
                cwd=tmp_path,
                stderr=subprocess.PIPE,
                text=True,
            )

            def parts() -> list[Any]:
                s3, bucket = clients.s3, stack.network_bucket
                uploads = s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
                answers = [s3.list_parts(Bucket=bucket, Key=up["Key"], UploadId=up["UploadId"]) for up in uploads]
                return [part for answer in answers for part in answer.get("Parts", [])]

            wait_until(lambda: len(parts()) >= 2, "two parts have arrived", 60)
            push.send_signal(signal.SIGINT)
            _, said = push.communicate(timeout=60)
        assert push.returncode == 130, said
        assert "Traceback" not in said
        arrived = sum(part["Size"] for part in parts())
        save_stack(stack, tmp_path / "stack.json")
        done = fsd_in(capsys)("push", "shards", "--stack", "stack.json", "--json").json()
        whole = sum(entry.size for entry in (*manifest.shards, manifest.plan))
        assert done["sent_bytes"] + done["found_bytes"] == whole
        assert 2 * PART <= arrived <= done["found_bytes"] < whole
        store = clients.open_bucket(stack.network_bucket)
        for entry in manifest.shards:
            assert store.get(key + entry.file) == (tmp_path / "shards" / entry.file).read_bytes()
        store.close()
    finally:
        delete_stack(clients, stack)
        clients.close()
