"""Networks on a stack: shards uploaded once, found again by the network's digest and the number of workers."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fsd_inference import partitioning
from fsd_inference.engine.spec import plan_folder
from fsd_inference.errors import FileFormatError, SettingError
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
"""Files are held in memory while they are sent."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The plan that serves a network with so many workers on a stack.

    Attributes
    ----------
    plan : str
        Digest of the exchange plan, which names the shards' folder.
    method : str
        Partitioner.
    seed : int
        Of the partitioner.
    pushed : str
        When, ISO 8601.
    """

    plan: str
    method: str
    seed: int
    pushed: str


@dataclass(frozen=True, slots=True)
class Push:
    """What a push did.

    Attributes
    ----------
    manifest : Manifest
        Of the plan that was pushed.
    sent_bytes, found_bytes : int
        Bytes of plan and shards that were uploaded, and that were on the stack already.
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
    """Upload a network, cut for some number of workers, to a stack; what is there already is not sent again.

    Parameters
    ----------
    network : Network or path
        A network, the path of one, or a directory made by `fsd partition`.
    stack : path
        The ``stack.json``.
    workers : int, optional
        P; 1 if not given, or what the directory was partitioned for.
    partition : str, optional
        Partitioner, for a network that is not partitioned yet; "graph" if not given. One worker needs none.
    seed : int, optional
        Of the partitioner.
    progress : Progress, optional
        Is told how far the push is.

    Returns
    -------
    Push
        What was sent, and what was there already.

    Raises
    ------
    InputError
        A setting makes no sense, or a file cannot be read.
    StoreError
        The bucket of networks cannot be written.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.push("net", stack="stack.json", workers=8)  # doctest: +SKIP
    """
    # boto3 takes a third of a second to import, which who uses no AWS need not wait for.
    from fsd_inference.aws.clients import Clients  # noqa: PLC0415
    from fsd_inference.aws.stack import load_stack  # noqa: PLC0415

    described = load_stack(Path(stack))
    progress = progress or Silent()
    clients = Clients.of_stack(described)
    store = clients.open_bucket(described.network_bucket)
    try:
        with _shards(network, store, workers, partition, seed, progress) as found:
            if isinstance(found, Manifest):  # there already
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
    """Give a folder of shards and its manifest; for a network that was pushed so before, the manifest alone."""
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
    """Upload shards, plan and, last, the manifest; return the bytes sent.

    Under a plan's digest there is always the same: a file that is there with the right size is not sent again, so that
    an upload that was broken off goes on where it was. The manifest says that it is complete.

    Raises
    ------
    FileFormatError
        A shard is not what the manifest says: it is the caller's to mend, not a rank's to find.
    """
    prefix = plan_folder(manifest.plan_digest.hex())
    there = {info.key.removeprefix(prefix): info.size for info in plans.list(prefix)}
    own = manifest.to_bytes()
    if MANIFEST_FILE in there:
        if plans.get(prefix + MANIFEST_FILE) == own:
            return 0
        there = {}  # another release's shards of the same plan
    missing = [entry for entry in _files(manifest) if there.get(entry.file) != entry.size]
    sent, lock = 0, threading.Lock()

    def send(entry: FileEntry) -> None:
        nonlocal sent
        data = (folder / entry.file).read_bytes()
        entry.check(data)
        plans.put(prefix + entry.file, data)
        with lock:
            sent += entry.size
            progress.advance("upload", sent)

    at_once = max(1, min(_UPLOADS, _IN_FLIGHT_BYTES // max((entry.size for entry in missing), default=1)))
    with (
        task(progress, "upload", sum(entry.size for entry in missing), unit="bytes"),
        ThreadPool(at_once) as pool,
    ):
        futures = [pool.submit(send, entry) for entry in missing]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
    plans.put(prefix + MANIFEST_FILE, own)
    return sent


def pushed_plan(
    plans: Store, wanted: Manifest | tuple[bytes, int], command: str, method: str | None = None
) -> tuple[Manifest, Partition, ExchangePlan]:
    """Return manifest, partition and plan of what was pushed.

    Parameters
    ----------
    plans : Store
        Holds them.
    wanted : Manifest or tuple
        The plan, or the network's digest and the number of workers.
    command : str
        What would push it, for messages.
    method : str, optional
        The partitioner that the plan must be of.

    Raises
    ------
    SettingError
        It was not pushed, or another partitioner's was.
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
                f"the network is on the stack for {_workers(workers)} as {entry.method!r} cut it, not {method!r}; "
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
    """Return the key that says which plan serves a network with so many workers."""
    return f"networks/{network_digest.hex()}/{workers}"


def write_index(plans: Store, manifest: Manifest) -> None:
    """Make a plan, which is uploaded, the one that serves its network with so many workers."""
    entry = Pushed(manifest.plan_digest.hex(), manifest.method, manifest.seed, datetime.now(UTC).isoformat())
    value = {"format": _FORMAT, "version": _VERSION, **asdict(entry)}
    plans.put(index_key(manifest.network_digest, manifest.workers), json.dumps(value).encode())


def find_pushed(plans: Store, network_digest: bytes, workers: int) -> Pushed | None:
    """Return what was pushed of a network for so many workers, or None.

    Raises
    ------
    FileFormatError
        The index names something that this release does not read.
    """
    key = index_key(network_digest, workers)
    data = plans.get(key)
    if data is None:
        return None
    try:
        value = json.loads(data)
        if value["format"] != _FORMAT or value["version"] != _VERSION:
            raise ValueError(value["version"])
        found = Pushed(str(value["plan"]), str(value["method"]), int(value["seed"]), str(value["pushed"]))
        if len(bytes.fromhex(found.plan)) != len(network_digest):
            raise ValueError(found.plan)
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(f"{key} is not what this release writes; push the network again") from error
    return found
