"""Pushing of networks: every file once, the manifest last; found again by network digest and number of workers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import fsd_inference as fsd
from fsd_inference.engine.spec import plan_folder
from fsd_inference.errors import FileFormatError, SettingError, StoreError
from fsd_inference.partitioning import Manifest, partition
from fsd_inference.progress import Silent
from fsd_inference.session.pushing import find_pushed, index_key, pushed_plan, upload, write_index
from fsd_inference.store.memory import MemoryStore

NETWORK = fsd.random_network([40, 30, 20], connections=4, seed=1)
COMMAND = "fsd push net --stack stack.json --workers 3"


class Recorded(MemoryStore):
    """Remembers what was written, and breaks when told so."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []
        self.breaks_after: int | None = None

    def put(self, key: str, data: bytes) -> str:
        if self.breaks_after is not None and len(self.written) >= self.breaks_after:
            raise StoreError("broken off")
        self.written.append(key.rpartition("/")[2])
        return super().put(key, data)


class Bar(Silent):
    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, task: str, total: float | None, unit: str = "") -> None:
        self.said.append((task, total, unit))

    def advance(self, task: str, completed: float) -> None:
        self.said.append((task, completed))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    partition(NETWORK, tmp_path / "shards", workers=3, method="block", seed=5)
    return tmp_path / "shards"


def manifest_of(shards: Path) -> Manifest:
    return Manifest.from_bytes((shards / "manifest.json").read_bytes())


def size(manifest: Manifest) -> int:
    return sum(entry.size for entry in (*manifest.shards, manifest.plan))


def test_everything_is_there_and_the_manifest_comes_last(shards: Path) -> None:
    store, bar, manifest = Recorded(), Bar(), manifest_of(shards)
    assert upload(store, shards, manifest, bar) == size(manifest)
    assert store.written[-1] == "manifest.json"
    assert sorted(store.written) == sorted(file.name for file in shards.iterdir())
    for file in shards.iterdir():
        assert store.get(plan_folder(manifest.plan_digest.hex()) + file.name) == file.read_bytes()
    assert bar.said[0] == ("upload", size(manifest), "bytes")
    assert bar.said[-1] == ("upload", size(manifest))
    store.written.clear()
    assert upload(store, shards, manifest, bar) == 0
    assert store.written == []


def test_an_upload_that_was_broken_off_goes_on(shards: Path) -> None:
    store, manifest = Recorded(), manifest_of(shards)
    store.breaks_after = 2
    with pytest.raises(StoreError, match="broken off"):
        upload(store, shards, manifest, Silent())
    assert "manifest.json" not in store.written
    first, store.breaks_after = set(store.written), None
    store.written.clear()
    upload(store, shards, manifest, Silent())
    assert first.isdisjoint(store.written)
    assert len(first) + len(store.written) == 5


def test_only_what_was_sent_counts_as_sent(shards: Path) -> None:
    class Continued(Recorded):
        """Has all of the plan but one byte already."""

        def put_file(self, key: str, path: Path, advance: Callable[[int], None]) -> int:
            whole = super().put_file(key, path, advance)
            return 1 if key.endswith("plan.safetensors") else whole

    bar, manifest = Bar(), manifest_of(shards)
    assert upload(Continued(), shards, manifest, bar) == size(manifest) - manifest.plan.size + 1
    assert bar.said[-1] == ("upload", size(manifest))


def test_what_is_under_way_ends_when_a_file_fails(shards: Path) -> None:
    failed, ended = threading.Event(), []

    class Slow(Recorded):
        """Fails with the plan, while the shards are sent byte after byte."""

        def put_file(self, key: str, path: Path, advance: Callable[[int], None]) -> int:
            if key.endswith("plan.safetensors"):
                failed.set()
                raise StoreError("broken off")
            assert failed.wait(30)
            try:
                while True:
                    advance(1)
            except StoreError:
                ended.append(path.name)
                raise

    with pytest.raises(StoreError, match="broken off"):
        upload(Slow(), shards, manifest_of(shards), Silent())
    assert sorted(ended) == [entry.file for entry in manifest_of(shards).shards]


def test_a_file_of_another_size_is_sent_again(shards: Path) -> None:
    store, manifest = Recorded(), manifest_of(shards)
    store.put(plan_folder(manifest.plan_digest.hex()) + manifest.shards[1].file, b"half")
    assert upload(store, shards, manifest, Silent()) == size(manifest)


def test_another_release_s_shards_are_replaced(shards: Path) -> None:
    store, manifest = Recorded(), manifest_of(shards)
    upload(store, shards, manifest, Silent())
    key = plan_folder(manifest.plan_digest.hex()) + "manifest.json"
    store.put(key, b'{"format": "fsd-shards", "version": 0}')
    assert upload(store, shards, manifest, Silent()) == size(manifest)
    assert store.get(key) == manifest.to_bytes()


def test_a_damaged_shard_is_not_sent(shards: Path) -> None:
    store, manifest = Recorded(), manifest_of(shards)
    file = shards / manifest.shards[2].file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(FileFormatError, match=manifest.shards[2].file):
        upload(store, shards, manifest, Silent())
    assert manifest.shards[2].file not in store.written
    assert "manifest.json" not in store.written


# --- finding it -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(shards: Path) -> Recorded:
    store, manifest = Recorded(), manifest_of(shards)
    upload(store, shards, manifest, Silent())
    write_index(store, manifest)
    return store


def test_a_network_is_found_by_its_digest(pushed: Recorded, shards: Path) -> None:
    found = find_pushed(pushed, NETWORK.digest, 3)
    assert found is not None
    assert (found.method, found.seed) == ("block", 5)
    for wanted in ((NETWORK.digest, 3), manifest_of(shards)):
        manifest, partition, plan = pushed_plan(pushed, wanted, COMMAND)
        assert manifest == manifest_of(shards)
        assert partition.workers == plan.workers == 3
    pushed_plan(pushed, (NETWORK.digest, 3), COMMAND, method="block")


def test_what_was_not_pushed_is_refused_with_the_command(pushed: Recorded, shards: Path) -> None:
    manifest = manifest_of(shards)
    with pytest.raises(SettingError, match=f"not on the stack for 4 workers; push it first: {COMMAND}"):
        pushed_plan(pushed, (NETWORK.digest, 4), COMMAND)
    with pytest.raises(SettingError, match=f"partitioned by 'block', not 'graph'; .*: {COMMAND}"):
        pushed_plan(pushed, (NETWORK.digest, 3), COMMAND, method="graph")
    pushed.delete([plan_folder(manifest.plan_digest.hex()) + "manifest.json"])  # a push that is going on, or cleaned up
    for wanted in ((NETWORK.digest, 3), manifest):
        with pytest.raises(SettingError, match=f"not on the stack.*: {COMMAND}"):
            pushed_plan(pushed, wanted, COMMAND)


def test_a_plan_without_its_files(pushed: Recorded, shards: Path) -> None:
    pushed.delete([plan_folder(manifest_of(shards).plan_digest.hex()) + "plan.safetensors"])
    with pytest.raises(FileFormatError, match=r"plan\.safetensors is not in the bucket of networks"):
        pushed_plan(pushed, (NETWORK.digest, 3), COMMAND)


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", {"format": "x"}, {"version": 2}, {"plan": "x"}, {"plan": "../x"}, {"seed": "x"}],
    ids=str,
)
def test_an_index_that_is_not_ours(pushed: Recorded, value: bytes | dict[str, object]) -> None:
    key = index_key(NETWORK.digest, 3)
    good = json.loads(pushed.get(key) or b"")
    pushed.put(key, value if isinstance(value, bytes) else json.dumps(good | value).encode())
    with pytest.raises(FileFormatError, match="is not an index entry of this release; push the network again"):
        find_pushed(pushed, NETWORK.digest, 3)
