"""Conformance tests of the store contract, run for `memory`, `directory` and `s3`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fsd_inference.errors import StoreError
from fsd_inference.store import Store, open_store
from fsd_inference.store.bucket import Credentials
from fsd_inference.store.s3 import S3Store


@pytest.fixture(params=["memory", "directory", pytest.param("s3", marks=pytest.mark.emulator)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "s3":
        bucket = request.getfixturevalue("new_bucket")()
        endpoint_url = request.getfixturevalue("emulator_url")
        opened: Store = S3Store(
            bucket,
            "some/folder",
            endpoint_url=endpoint_url,
            region="us-east-1",
            credentials=Credentials("test", "test"),
        )
    elif request.param == "directory":
        opened = open_store((tmp_path / "store").as_uri())
    else:
        opened = open_store("memory://")
    yield opened
    opened.close()


def at_once(threads: int, work: Callable[[int], object]) -> list[object]:
    """Run `work(i)` in threads that start together; return the results."""
    gate = threading.Barrier(threads)

    def run(index: int) -> object:
        gate.wait()
        return work(index)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


def test_absent_is_none_and_a_miss(store: Store) -> None:
    assert store.get("a/b") is None
    assert store.get_object("a/b") is None
    assert store.get_range("a/b", 0, 1) is None
    assert store.get_ranges("a/b", [(0, 1), (1_000_000, 1)]) is None
    assert store.stat("a/b") is None
    assert store.meter.snapshot().misses >= 5
    assert store.put_if_match("a/b", b"x", "no-such-tag") is None
    assert store.get("a/b") is None


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
def test_what_was_put_comes_back(store: Store, size: int) -> None:
    data = bytes(i * 31 % 256 for i in range(1000)) * (size // 1000) if size >= 1000 else b"x" * size
    etag = store.put("a/b.bin", data)
    assert store.get("a/b.bin") == data
    found = store.get_object("a/b.bin")
    assert found is not None
    assert (found.data, found.etag) == (data, etag)
    info = store.stat("a/b.bin")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("a/b.bin", size, etag)


def test_modified_is_the_time_of_writing(store: Store) -> None:
    store.put("a", b"1")
    info = store.stat("a")
    assert info is not None
    assert info.modified.tzinfo is not None
    assert abs(info.modified - datetime.now(UTC)) < timedelta(seconds=30)


def test_put_overwrites_and_changes_the_tag(store: Store) -> None:
    first = store.put("a", b"one")
    second = store.put("a", b"two")
    assert first != second
    assert store.get("a") == b"two"


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 10, b"0123456789"), (3, 4, b"3456"), (8, 100, b"89"), (10, 1, b""), (500, 5, b""), (4, 0, b""), (99, 0, b"")],
)
def test_range(store: Store, start: int, length: int, expected: bytes) -> None:
    store.put("a", b"0123456789")
    assert store.get_range("a", start, length) == expected


def test_range_of_an_empty_object(store: Store) -> None:
    store.put("a", b"")
    assert store.get("a") == b""
    assert store.get_range("a", 0, 10) == b""
    assert store.get_ranges("a", [(0, 10), (5, 5)]) == [b"", b""]


def test_ranges_come_in_the_order_asked(store: Store) -> None:
    data = bytes(range(256)) * 2000
    store.put("a", data)
    ranges = [(300_000, 10), (0, 5), (0, 5), (3, 20), (511_990, 100), (9_999_999, 3), (7, 0), (100_000, 100_000)]
    assert store.get_ranges("a", ranges) == [data[start : start + length] for start, length in ranges]
    assert store.get_ranges("a", []) == []


def test_negative_ranges_are_refused(store: Store) -> None:
    store.put("a", b"x")
    with pytest.raises(StoreError, match="negative"):
        store.get_range("a", -1, 2)
    with pytest.raises(StoreError, match="negative"):
        store.get_ranges("a", [(0, -2)])


def test_put_if_absent(store: Store) -> None:
    etag = store.put_if_absent("claims/0", b"first")
    assert etag is not None
    assert store.put_if_absent("claims/0", b"second") is None
    found = store.get_object("claims/0")
    assert found is not None
    assert (found.data, found.etag) == (b"first", etag)
    store.delete(["claims/0"])
    assert store.put_if_absent("claims/0", b"third") is not None


def test_put_if_match(store: Store) -> None:
    first = store.put("lease", b"1")
    second = store.put_if_match("lease", b"2", first)
    assert second is not None
    assert store.put_if_match("lease", b"3", first) is None
    found = store.get_object("lease")
    assert found is not None
    assert (found.data, found.etag) == (b"2", second)
    store.delete(["lease"])
    assert store.put_if_match("lease", b"4", second) is None
    assert store.get("lease") is None


def test_one_of_many_wins_put_if_absent(store: Store) -> None:
    for attempt in range(5):
        key = f"race/{attempt}"
        tags = at_once(16, lambda i, key=key: store.put_if_absent(key, f"thread {i}".encode()))  # type: ignore[misc]
        winners = [i for i, tag in enumerate(tags) if tag is not None]
        assert len(winners) == 1
        assert store.get(key) == f"thread {winners[0]}".encode()


def test_no_increment_is_lost_with_put_if_match(store: Store) -> None:
    store.put("counter", b"0")

    def increment(_: int) -> None:
        for _repeat in range(5):
            while True:
                found = store.get_object("counter")
                assert found is not None
                # The padding gives versions different sizes, too.
                value = int(found.data) + 1
                if store.put_if_match("counter", str(value).encode(), found.etag) is not None:
                    break

    at_once(6, increment)
    assert store.get("counter") == b"30"


def test_readers_see_whole_objects_only(store: Store) -> None:
    versions = [bytes([i]) * (200_000 + i) for i in range(4)]
    store.put("big", versions[0])
    done = threading.Event()
    torn: list[int] = []

    def read(_: int) -> None:
        while not done.is_set():
            data = store.get("big")
            if data not in versions:
                torn.append(-1 if data is None else len(data))

    def write(_: int) -> None:
        for repeat in range(20):
            store.put("big", versions[repeat % 4])
        done.set()

    at_once(4, lambda i: write(i) if i == 0 else read(i))
    assert torn == []


def test_list_is_by_folder_and_in_key_order(store: Store) -> None:
    keys = ["a-b/x", "a/x", "a/b/c", "a/b-c", "a/B", "ab/x", "a.b", "z"]
    for number, key in enumerate(keys):
        store.put(key, b"x" * number)
    assert [info.key for info in store.list("")] == sorted(keys)
    assert [info.key for info in store.list("a/")] == ["a/B", "a/b-c", "a/b/c", "a/x"]
    assert [info.key for info in store.list("a/b/")] == ["a/b/c"]
    assert list(store.list("none/")) == []
    for info in store.list(""):
        same = store.stat(info.key)
        assert same is not None
        assert (info.key, info.size, info.etag) == (same.key, same.size, same.etag)
        assert abs(info.modified - same.modified) <= timedelta(seconds=1)  # HTTP dates have no fractions
        assert info.size == keys.index(info.key)


def test_delete_passes_over_what_is_not_there(store: Store) -> None:
    store.put("a", b"1")
    store.put("b/c", b"2")
    store.delete(["a", "nope", "b/nope", "b/c"])
    store.delete([])
    assert list(store.list("")) == []
    store.put("a", b"again")
    assert store.get("a") == b"again"


ILLEGAL = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/../../b",
    "a/./b",
    "~store/x",
    "a b",
    "a\\b",
    "a\n",
    "a\0b",
]
ILLEGAL += ["a?b", "a%2e", "ä", "日本", "x" * 201, "/".join(["x" * 100] * 10)]


@pytest.mark.parametrize("key", ILLEGAL)
def test_illegal_keys_are_refused(store: Store, key: str) -> None:
    for use in (
        lambda: store.put(key, b""),
        lambda: store.put_if_absent(key, b""),
        lambda: store.put_if_match(key, b"", "tag"),
        lambda: store.get(key),
        lambda: store.get_object(key),
        lambda: store.get_range(key, 0, 1),
        lambda: store.get_ranges(key, [(0, 1)]),
        lambda: store.stat(key),
        lambda: store.delete([key]),
    ):
        with pytest.raises(StoreError, match="is not a valid key") as caught:
            use()
        assert not caught.value.retryable


@pytest.mark.parametrize("key", [".a", "...", "a..b/..c", "-", "_", "A/9.Z", "x" * 200, "/".join(["x" * 99] * 9)])
def test_odd_but_legal_keys(store: Store, key: str) -> None:
    store.put(key, b"here")
    assert store.get(key) == b"here"
    assert [info.key for info in store.list("")] == [key]


@pytest.mark.parametrize("prefix", ["a", "/", "../", "a//", "ä/"])
def test_illegal_prefixes_are_refused(store: Store, prefix: str) -> None:
    with pytest.raises(StoreError):
        store.list(prefix)
