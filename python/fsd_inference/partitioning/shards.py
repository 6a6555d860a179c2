"""Writing the shards of a partitioned network, with their plan and manifest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsd_inference.atomic import atomic_directory, check_replaceable, naming
from fsd_inference.network import Network
from fsd_inference.partitioning.exchange import check_partition, exchange_plan, volumes
from fsd_inference.partitioning.manifest import MANIFEST_FILE, PLAN_FILE, FileEntry, HeadEntry, Manifest
from fsd_inference.partitioning.plan import ExchangePlan, Partition, plan_digest
from fsd_inference.partitioning.shard import layer_parts
from fsd_inference.partitioning.shard_file import (
    edge_tensors,
    part_metadata,
    part_tensors,
    plan_tensors,
    shard_metadata,
)
from fsd_inference.partitioning.sharing import share_rows
from fsd_inference.partitioning.tensors import TensorSpool
from fsd_inference.temporary import TemporaryFolder

Put = Callable[[str, bytes], object]


def write_shards(
    network: Network,
    partition: Partition,
    target: Path | Put,
    *,
    plan: ExchangePlan | None = None,
    method: str = "custom",
    seed: int = 0,
    seconds: float = 0.0,
) -> Manifest:
    """Split `network` by a partition, and write the shard of each rank, the plan and the manifest.

    Only one layer at a time is held in memory, and with a callable target also one shard.

    Parameters
    ----------
    network : Network
        The network to split.
    partition : Partition
        Owner of each neuron.
    target : Path or callable
        A directory, which is written atomically and replaces an older set of shards; or a callable that stores (name,
        content), called for the manifest last.
    plan : ExchangePlan, optional
        The exchange plan; `exchange_plan` with `share_rows` if not given.
    method, seed, seconds
        Name, random seed and run time in seconds of the partitioner, for the manifest.

    Raises
    ------
    InputError, OutputError
        The partition belongs to another network, or the directory holds anything but shards or cannot be written.
    """
    check_partition(network, partition)
    plan = plan or share_rows(exchange_plan(network, partition))

    def write(folder: Path) -> Manifest:
        files = _write_files(network, partition, plan, folder)
        manifest = Manifest(
            workers=partition.workers,
            method=method,
            seed=seed,
            network_digest=network.digest,
            plan_digest=plan_digest(network.digest, partition, plan),
            widths=network.widths,
            connections=network.connections,
            volumes=volumes(network, partition, plan, seconds),
            plan=files[0],
            shards=files[1:],
            output=None if network.output is None else network.output.to_json(),
        )
        (folder / MANIFEST_FILE).write_bytes(manifest.to_bytes())
        return manifest

    if not isinstance(target, Path):
        with TemporaryFolder("shards") as temporary:
            with naming(temporary):
                manifest = write(temporary)
            for entry in (*manifest.shards, manifest.plan):
                target(entry.file, (temporary / entry.file).read_bytes())
            target(MANIFEST_FILE, manifest.to_bytes())
        return manifest
    with atomic_directory(target, holds="shards", replaceable=_is_shards, parents=True) as folder:
        return write(folder)


def _write_files(network: Network, partition: Partition, plan: ExchangePlan, folder: Path) -> tuple[FileEntry, ...]:
    """Write plan and shards into `folder`; return their file entries, that of the plan first."""
    paths = [folder / f"rank-{rank:05d}.safetensors" for rank in range(partition.workers)]
    spools = [TensorSpool(path) for path in paths]
    for k in range(len(network)):
        incoming, outgoing = plan.receives(k), plan.sends(k)
        for rank, spool in enumerate(spools):
            receives = [(edge.source, number, edge.rows.size) for edge, number in incoming.get(rank, [])]
            spool.add(edge_tensors(k, receives, outgoing.get(rank, [])))
    edge_bytes = [spool.size for spool in spools]
    metadata: list[list[dict[str, Any]]] = [[] for _ in paths]
    for k, layer in enumerate(network):
        for rank, part in enumerate(layer_parts(layer, k, partition, plan)):
            metadata[rank].append(part_metadata(part, spools[rank].add(part_tensors(k, part))))
    planned = TensorSpool(folder / PLAN_FILE)
    planned.add(plan_tensors(partition, plan))
    planned.finish({})
    entries = [_entry(folder / PLAN_FILE)]
    for rank, (path, spool, parts) in enumerate(zip(paths, spools, metadata, strict=True)):
        first = spool.finish(shard_metadata(rank, partition.workers, network.widths[0], parts))
        entries.append(_entry(path, first + edge_bytes[rank]))
    return tuple(entries)


def _entry(path: Path, head_bytes: int | None = None) -> FileEntry:
    """Return the entry of a file in the manifest; `head_bytes` is the size of what a reader of a shard reads first."""
    head = None
    with path.open("rb") as file:
        if head_bytes is not None:
            head = HeadEntry(head_bytes, hashlib.sha256(file.read(head_bytes)).hexdigest())
            file.seek(0)
        return FileEntry(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest(), head)


def check_target(directory: Path) -> None:
    """Raise InputError if `directory` exists and holds anything but shards."""
    if directory.exists():
        check_replaceable(directory, holds="shards", replaceable=_is_shards)


def _is_shards(folder: Path) -> bool:
    """Return whether a directory holds shards and nothing else, so that it may be replaced."""
    names = {entry.name for entry in folder.iterdir()}
    return {name for name in names if not re.fullmatch(r"rank-[0-9]+\.safetensors", name)} == {MANIFEST_FILE, PLAN_FILE}
