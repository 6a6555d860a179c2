"""The cache of objects on a function's disk: read once, bounded in size, never partially written."""

from __future__ import annotations

import os
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsd_inference.aws.handlers.kept_files import KeptFiles


class Objects:
    """A store that counts its reads."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects
        self.reads: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.reads.append(key)
        return self.objects.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        self.reads.append(f"{key} {start}")
        found = self.objects.get(key)
        return None if found is None else found[start : start + length]


def test_what_was_read_once_comes_from_the_disk_also_in_another_process(tmp_path: Path) -> None:
    objects = Objects(a=b"1", b=b"")
    for _ in range(2):
        read = KeptFiles(tmp_path / "kept", 100).cached(objects).get
        assert [read("a"), read("b"), read("a")] == [b"1", b"", b"1"]
    assert objects.reads == ["a", "b"]


def test_what_is_absent_is_asked_for_again(tmp_path: Path) -> None:
    objects = Objects()
    read = KeptFiles(tmp_path, 100).cached(objects).get
    assert read("a") is None
    objects.objects["a"] = b"there now"
    assert read("a") == b"there now"


def test_the_longest_unused_makes_room(tmp_path: Path) -> None:
    objects = Objects(a=b"a" * 40, b=b"b" * 40, c=b"c" * 40)
    read = KeptFiles(tmp_path, 100).cached(objects).get
    read("a")
    read("b")
    for file, seconds in zip(sorted(tmp_path.iterdir(), key=lambda file: file.read_bytes()), (200, 100), strict=True):
        os.utime(file, (seconds, seconds))  # b was used before a
    read("c")
    assert sorted(file.read_bytes()[:1] for file in tmp_path.iterdir()) == [b"a", b"c"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 70)), max_size=20))
def test_copies_stay_within_bounds_and_are_the_objects(tmp_path_factory: pytest.TempPathFactory, wanted: list) -> None:  # type: ignore[type-arg]
    folder = tmp_path_factory.mktemp("kept")
    sizes = dict(reversed(wanted))
    objects = Objects(**{key: key.encode() * size for key, size in sizes.items()})
    read = KeptFiles(folder, 100).cached(objects).get
    for key, _ in wanted:
        assert read(key) == objects.objects[key]
        assert sum(file.stat().st_size for file in folder.iterdir()) <= 100


def test_a_disk_that_takes_nothing_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    objects = Objects(a=b"1")
    read = KeptFiles(tmp_path / "file" / "folder", 100).cached(objects).get
    assert [read("a"), read("a")] == [b"1", b"1"]
    assert objects.reads == ["a", "a"]


def test_ranges_are_kept_apart_and_of_a_large_object_only_its_front(tmp_path: Path) -> None:
    objects = Objects(a=bytes(range(120)))
    for _ in range(2):
        cached = KeptFiles(tmp_path, 100).cached(objects)
        assert [cached.get_range("a", start, 40) for start in (0, 40, 80)] == [
            objects.objects["a"][start : start + 40] for start in (0, 40, 80)
        ]
    assert objects.reads == ["a 0", "a 40", "a 80", "a 80"]
    assert cached.get_range("b", 0, 40) is None


def test_a_copy_that_is_removed_while_it_is_read_does_not_come_back_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(a=b"1")
    read = KeptFiles(tmp_path, 100).cached(objects).get
    read("a")
    whole = Path.read_bytes

    def and_remove(path: Path) -> bytes:
        data = whole(path)
        path.unlink()  # as another process does to make room
        return data

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", and_remove)
        assert read("a") == b"1"
    assert [read("a"), read("a")] == [b"1", b"1"]
    assert objects.reads == ["a", "a"]


def test_another_process_does_not_remove_a_copy_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = Objects(a=b"a" * 60, b=b"b" * 60)
    others: list[threading.Thread] = []
    whole = Path.write_bytes

    def and_wait(path: Path, data: bytes) -> int:
        written = whole(path, data)
        if not others:  # a cache of its own knows no more of this one than another process does
            others.append(threading.Thread(target=KeptFiles(tmp_path, 100).cached(objects).get, args=("b",)))
            others[0].start()
            others[0].join(0.3)
        return written

    monkeypatch.setattr(Path, "write_bytes", and_wait)
    took_place: list[Path] = []
    replace = Path.replace

    def and_note(path: Path, target: Path) -> Path:
        took_place.append(replace(path, target))
        return took_place[-1]

    monkeypatch.setattr(Path, "replace", and_note)
    assert KeptFiles(tmp_path, 100).cached(objects).get("a") == objects.objects["a"]
    others[0].join()
    assert len(took_place) == 2
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [objects.objects["b"]]


def test_a_process_that_starts_later_has_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    folder = tmp_path / "kept"
    objects = Objects(a=b"a" * 40, b=b"b" * 40, c=b"c" * 40)

    def disk(_: Path) -> usage:
        used = sum(file.stat().st_size for file in folder.iterdir()) if folder.is_dir() else 0
        return usage(200, used, 200 - used)

    monkeypatch.setattr("fsd_inference.aws.handlers.kept_files.disk_usage", disk)
    for key in "abc":  # each in a process of its own
        KeptFiles.half_of_disk(folder).cached(objects).get(key)
    assert sorted(file.read_bytes()[:1] for file in folder.iterdir()) == [b"b", b"c"]
