"""Deployment of networks to a stack: upload of shards, and an index from network digest and worker count to plan."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fsd_inference import partitioning
from fsd_inference.engine.spec import plan_folder
from fsd_inference.errors import FileFormatError, SettingError, StoreError
from fsd_inference.fields import load_json
from fsd_inference.network import Network
from fsd_inference.partitioning import METHODS, ExchangePlan, Manifest, Partition, read_manifest, read_plan
from fsd_inference.partitioning.manifest import MANIFEST_FILE, FileEntry
from fsd_inference.partitioning.methods import DEFAULT_METHOD
from fsd_inference.progress import Progress, Silent, task
from fsd_inference.store.base import Store
from fsd_inference.temporary import TemporaryFolder
from fsd_inference.threads import ThreadPool

_FORMAT, _VERSION = "fsd-pushed", 1
_UPLOADS = 8
_IN_FLIGHT_BYTES = 1 << 30
"""Maximum size of the files that are uploaded at the same time, which some stores hold in memory."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """Index entry of a stack: the plan to use for a network and a number of workers.

    Attributes
    ----------
    plan : str
        Digest of the exchange plan (hexadecimal), which names the folder of the shards.
    method : str
        Name of the partitioner.
    seed : int
        Random seed of the partitioner.
    pushed : str
        Time of the push, ISO 8601.
    """

    plan: str
    method: str
    seed: int
    pushed: str


@dataclass(frozen=True, slots=True)
class Push:
    """A network that `push` has uploaded to a stack: its manifest, and how many bytes were sent or already there.

    Attributes
    ----------
    manifest : Manifest
        Manifest of the plan that was pushed.
    sent_bytes : int
        Size of the plan and shards that were uploaded, in bytes.
    found_bytes : int
        Size of the plan and shards that were already on the stack, in bytes.
    """

    manifest: Manifest
    sent_bytes: int
    found_bytes: int


def push(
    network: Network | str | os.PathLike[str],
    *,
    stack: str | os.PathLike[str],
    workers: int | None = None,
    partition: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Push:
    """Partition a network for a number of workers and upload its shards to a stack; skip files that are already there.

    Parameters
    ----------
    network : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    stack : path
        The ``stack.json``.
    workers : int, optional
        Number of workers P; defaults to the number that the directory was partitioned for, otherwise to 1.
    partition : str, optional
        Partitioner of a network that is not partitioned yet, "graph" by default; one worker needs none.
    seed : int, optional
        Random seed of the partitioner.
    progress : Progress, optional
        Receives the progress of the push.

    Returns
    -------
    Push
        The manifest, and the bytes that were uploaded and found.

    Raises
    ------
    InputError
        A setting is invalid, or a file cannot be read.
    StoreError
        The bucket of networks cannot be written.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.push("net", stack="stack.json", workers=8)  # doctest: +SKIP
    """
    # Imported lazily: boto3 takes a third of a second, and only users of AWS need it.
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    described = load_stack(Path(stack))
    progress = progress or Silent()
    clients = Clients.of_stack(described)
    store = clients.open_bucket(described.network_bucket, owner=described.account)
    try:
        with _shards(network, store, workers, partition, seed, progress) as found:
            if isinstance(found, Manifest):  # pushed before
                return Push(found, 0, sum(entry.size for entry in _files(found)))
            folder, manifest = found
            sent = upload(store, folder, manifest, progress)
            write_index(store, manifest)
            return Push(manifest, sent, sum(entry.size for entry in _files(manifest)) - sent)
    finally:
        store.close()
        clients.close()


@contextmanager
def _shards(
    network: Network | str | os.PathLike[str],
    store: Store,
    workers: int | None,
    method: str | None,
    seed: int,
    progress: Progress,
) -> Iterator[tuple[Path, Manifest] | Manifest]:
    """Yield a folder of shards and its manifest, or only the manifest if the same partition was pushed before."""
    if not isinstance(network, Network) and (Path(network) / MANIFEST_FILE).exists():
        manifest = read_manifest(network)
        if method is not None:
            raise SettingError(f"{network} is partitioned already; leave the method out, or give the network")
        if workers not in {None, manifest.workers}:
            raise SettingError(
                f"{network} was partitioned for {manifest.workers} workers, not {workers}; partition it again"
            )
        yield Path(network), manifest
        return
    loaded = network if isinstance(network, Network) else Network.load(network)
    workers = 1 if workers is None else workers
    method = "block" if workers == 1 else method or DEFAULT_METHOD
    if method not in METHODS:
        raise SettingError(f"partition must be one of {', '.join(METHODS)}, not {method!r}")
    there = find_pushed(store, loaded.digest, workers)
    if there is not None and (there.method, there.seed) == (method, seed):
        manifest_there = _manifest(store, there.plan)
        if manifest_there is not None:
            yield manifest_there
            return
    with TemporaryFolder("shards") as folder:
        with task(progress, "partition"):
            manifest = partitioning.partition(loaded, folder / "shards", workers=workers, method=method, seed=seed)
        yield folder / "shards", manifest


# --- shards -----------------------------------------------------------------------------------------------------------


def upload(plans: Store, folder: Path, manifest: Manifest, progress: Progress) -> int:
    """Upload shards, plan and, last, the manifest; return the number of bytes sent.

    The keys contain the digest of the plan, so uploads are idempotent: a file that exists with the right size is
    skipped, and an interrupted upload resumes, where the store can within a file. The manifest marks the upload as
    complete.

    Raises
    ------
    FileFormatError
        A shard does not match the manifest; found here, where the caller can fix it, rather than by a rank.
    """
    prefix = plan_folder(manifest.plan_digest.hex())
    there = {info.key.removeprefix(prefix): info.size for info in plans.list(prefix)}
    own = manifest.to_bytes()
    if MANIFEST_FILE in there:
        if plans.get(prefix + MANIFEST_FILE) == own:
            return 0
        there = {}  # shards of the same plan, written by another release
    missing = [entry for entry in _files(manifest) if there.get(entry.file) != entry.size]
    done, lock, is_stopped = 0, threading.Lock(), False

    def advance(count: int) -> None:
        nonlocal done
        if is_stopped:
            raise StoreError("the upload was stopped", retryable=False)
        with lock:
            done += count
            progress.advance("upload", done)

    def send(entry: FileEntry) -> int:
        entry.check_file(folder / entry.file)
        return plans.put_file(prefix + entry.file, folder / entry.file, advance)

    at_once = max(1, min(_UPLOADS, _IN_FLIGHT_BYTES // max((entry.size for entry in missing), default=1)))
    with (
        task(progress, "upload", sum(entry.size for entry in missing), unit="bytes"),
        ThreadPool(at_once) as pool,
    ):
        futures = [pool.submit(send, entry) for entry in missing]
        try:
            sent = sum(future.result() for future in as_completed(futures))
        except BaseException:
            is_stopped = True
            for future in futures:
                future.cancel()
            raise
    plans.put(prefix + MANIFEST_FILE, own)
    return sent


def pushed_plan(
    plans: Store, wanted: Manifest | tuple[bytes, int], command: str, method: str | None = None
) -> tuple[Manifest, Partition, ExchangePlan]:
    """Return manifest, partition and exchange plan of a network that was pushed.

    Parameters
    ----------
    plans : Store
        The bucket of networks.
    wanted : Manifest or (bytes, int)
        The manifest of a partitioned network, or the digest of a network and the number of workers.
    command : str
        The command that pushes the network, for error messages.
    method : str, optional
        The partitioner that must have made the plan; any if not given.

    Raises
    ------
    SettingError
        The network was not pushed, or was pushed with another partitioner.
    """
    if isinstance(wanted, Manifest):
        found = _manifest(plans, wanted.plan_digest.hex())
        if found is None:
            raise SettingError(f"this partition of the network is not on the stack; push it first: {command}")
    else:
        digest, workers = wanted
        entry = find_pushed(plans, digest, workers)
        found = None if entry is None else _manifest(plans, entry.plan)
        if entry is None or found is None:
            raise SettingError(f"the network is not on the stack for {_workers(workers)}; push it first: {command}")
        if method not in {None, entry.method}:
            raise SettingError(
                f"the network is on the stack for {_workers(workers)} partitioned by {entry.method!r}, not {method!r}; "
                f"leave the method out, or push it again: {command}"
            )
    return found, *_plan(plans, found)


def _workers(count: int) -> str:
    return f"{count} workers" if count > 1 else "1 worker"


def _manifest(plans: Store, plan: str) -> Manifest | None:
    key = plan_folder(plan) + MANIFEST_FILE
    data = plans.get(key)
    return None if data is None else Manifest.from_bytes(data, key)


def _plan(plans: Store, manifest: Manifest) -> tuple[Partition, ExchangePlan]:
    key = plan_folder(manifest.plan_digest.hex()) + manifest.plan.file
    data = plans.get(key)
    if data is None:
        raise FileFormatError(f"{key} is not in the bucket of networks although its manifest is; push it again")
    return read_plan(data, manifest)


def _files(manifest: Manifest) -> list[FileEntry]:
    return [*manifest.shards, manifest.plan]


# --- index ------------------------------------------------------------------------------------------------------------


def index_key(network_digest: bytes, workers: int) -> str:
    """Return the key of the index entry for a network and a number of workers."""
    return f"networks/{network_digest.hex()}/{workers}"


def write_index(plans: Store, manifest: Manifest) -> None:
    """Write the index entry that makes an uploaded plan the current one for its network and number of workers."""
    entry = Pushed(manifest.plan_digest.hex(), manifest.method, manifest.seed, datetime.now(UTC).isoformat())
    value = {"format": _FORMAT, "version": _VERSION, **asdict(entry)}
    plans.put(index_key(manifest.network_digest, manifest.workers), json.dumps(value).encode())


def find_pushed(plans: Store, network_digest: bytes, workers: int) -> Pushed | None:
    """Return the index entry for a network and a number of workers, or None if there is none.

    Raises
    ------
    FileFormatError
        The entry is not one that this release can read.
    """
    key = index_key(network_digest, workers)
    data = plans.get(key)
    if data is None:
        return None
    try:
        value = load_json(data)
        if value["format"] != _FORMAT or value["version"] != _VERSION:
            raise ValueError(value["version"])
        found = Pushed(str(value["plan"]), str(value["method"]), int(value["seed"]), str(value["pushed"]))
        if len(bytes.fromhex(found.plan)) != len(network_digest):
            raise ValueError(found.plan)
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{key} is not an index entry of this release; push the network again") from error
    return found
