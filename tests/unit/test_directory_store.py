"""Behaviour specific to the directory store, and opening of stores."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from fsd_inference.errors import AccessDeniedError, SettingError, StoreError
from fsd_inference.store import Store, open_store
from fsd_inference.store.directory import DirectoryStore
from fsd_inference.store.memory import MemoryStore
from fsd_inference.store.s3 import S3Store


def count_up(root: str, gate: object, times: int) -> int:
    """Add 1 to a shared counter `times` times; return how many of 20 claims this process won."""
    store = DirectoryStore(root)
    gate.wait()  # type: ignore[attr-defined]
    won = sum(store.put_if_absent(f"claims/{index}", b"x") is not None for index in range(20))
    for _ in range(times):
        while True:
            found = store.get_object("counter")
            assert found is not None
            if store.put_if_match("counter", str(int(found.data) + 1).encode(), found.etag) is not None:
                break
    return won


def test_processes_share_it(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("counter", b"0")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, context.Pool(3) as pool:
        gate = manager.Barrier(3)
        won = pool.starmap(count_up, [(str(tmp_path), gate, 40)] * 3)
        pool.close()
        pool.join()
    assert store.get("counter") == b"120"
    assert sum(won) == 20


def test_every_version_has_its_own_tag(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    tags = [store.put("a", b"same") for _ in range(500)]
    assert len(set(tags)) == 500


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b", b"1")
    assert store.put_if_absent("a/b", b"2") is None
    assert store.put_if_match("a/b", b"2", "other") is None
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert [name for name in files if "lock-" not in name] == ["a/b"]


def test_a_key_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a/b", b"1")
    store.put("c", b"1")
    for write in (store.put, store.put_if_absent):
        for key in ("a", "c/d"):
            with pytest.raises(StoreError, match="names both an object and a folder") as caught:
                write(key, b"2")
            assert not caught.value.retryable
    assert store.get("a") is None
    assert store.get("c/d") is None
    assert store.stat("a") is None
    store.delete(["c/d"])
    assert [info.key for info in store.list("")] == ["a/b", "c"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_what_may_not_be_read_is_refused(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    (tmp_path / "a").chmod(0)
    with pytest.raises(AccessDeniedError, match="cannot read a in"):
        store.get("a")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot open"):
        DirectoryStore(tmp_path / "file")


def opened(url: str) -> Store:
    store = open_store(url, region="us-east-1")
    store.close()
    return store


def test_urls_name_stores(tmp_path: Path) -> None:
    assert isinstance(opened("memory://"), MemoryStore)
    assert isinstance(opened((tmp_path / "with space").as_uri()), DirectoryStore)
    assert (tmp_path / "with space").is_dir()
    assert isinstance(opened("s3://bucket"), S3Store)
    assert isinstance(opened("s3://bucket/a/folder/"), S3Store)


@pytest.mark.parametrize(
    "url", ["", "bucket", "memory://x", "file://host/x", "file:", "s3://", "s3:///x", "http://x", "s3://b?x=1"]
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(SettingError, match="is not the URL of a store"):
        open_store(url)
