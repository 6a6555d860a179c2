"""Writing a network's shards with their plan and manifest, and reading them back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fsd_inference.atomic import atomic_directory, check_replaceable, naming
from fsd_inference.network import Network
from fsd_inference.partitioning.exchange import check_partition, exchange_plan, volumes
from fsd_inference.partitioning.manifest import MANIFEST_FILE, PLAN_FILE, FileEntry, Manifest
from fsd_inference.partitioning.plan import ExchangePlan, Partition, plan_digest
from fsd_inference.partitioning.shard import layer_parts
from fsd_inference.partitioning.shard_file import (
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
    """Cut `network` and write every rank's shard, the plan and the manifest.

    One layer at a time is in memory; with a callable target, also one shard.

    Parameters
    ----------
    network : Network
        What is cut.
    partition : Partition
        How.
    target : Path or callable
        A directory, which is written beside and renamed when complete, and replaces an older set of shards; or a
        callable that puts (name, content) somewhere, the manifest last.
    plan : ExchangePlan, optional
        Who sends what to whom; `exchange_plan` with `share_rows` if not given.
    method, seed, seconds
        How the partition was made, for the manifest.

    Raises
    ------
    InputError, OutputError
        The partition is not one of this network, the directory is taken by something else, or cannot be written.
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
    """Write plan and shards into `folder`; return their entries, the plan's first."""
    paths = [folder / f"rank-{rank:05d}.safetensors" for rank in range(partition.workers)]
    spools = [TensorSpool(path) for path in paths]
    metadata: list[list[dict[str, Any]]] = [[] for _ in paths]
    for k, layer in enumerate(network):
        for rank, part in enumerate(layer_parts(layer, k, partition, plan)):
            spools[rank].add(part_tensors(k, part))
            metadata[rank].append(part_metadata(part))
    planned = TensorSpool(folder / PLAN_FILE)
    planned.add(plan_tensors(partition, plan))
    finished = [planned.finish({})]
    for rank, (spool, parts) in enumerate(zip(spools, metadata, strict=True)):
        finished.append(spool.finish(shard_metadata(rank, partition.workers, network.widths[0], parts)))
    return tuple(_entry(path) for path in finished)


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        return FileEntry(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def check_target(directory: Path) -> None:
    """Raise InputError if a directory is there that shards would not replace."""
    if directory.exists():
        check_replaceable(directory, holds="shards", replaceable=_is_shards)


def _is_shards(folder: Path) -> bool:
    """Whether a directory holds shards and nothing else, so that it may be replaced."""
    names = {entry.name for entry in folder.iterdir()}
    return {name for name in names if not re.fullmatch(r"rank-[0-9]+\.safetensors", name)} == {MANIFEST_FILE, PLAN_FILE}
