"""Readers of shards, plan and manifest, from a directory or from bytes, without the dependencies of partitioners."""

from __future__ import annotations

import io
import os
from pathlib import Path

from fsd_inference.errors import FileFormatError
from fsd_inference.partitioning.manifest import MANIFEST_FILE, Manifest
from fsd_inference.partitioning.plan import ExchangePlan, Partition, plan_digest
from fsd_inference.partitioning.shard import RankShard
from fsd_inference.partitioning.shard_file import parse_plan
from fsd_inference.partitioning.shard_reader import open_shard


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """Read the manifest of a directory of shards.

    Raises
    ------
    FileFormatError
        The manifest is missing or invalid.
    """
    path = Path(directory) / MANIFEST_FILE
    return Manifest.from_bytes(_read(path), str(path))


def read_shard(data: bytes, manifest: Manifest, rank: int) -> RankShard:
    """Parse the shard of a rank from the bytes of its file.

    Raises
    ------
    FileFormatError
        The bytes do not match the manifest, or are not a shard of this rank.
    """
    manifest.shard(rank).check(data)
    return open_shard(io.BytesIO(data).read, manifest, rank).whole()


def load_shard(directory: str | os.PathLike[str], rank: int) -> RankShard:
    """Read the shard of one rank from a directory; raises FileFormatError like `read_shard`."""
    manifest = read_manifest(directory)
    return read_shard(_read(Path(directory) / manifest.shard(rank).file), manifest, rank)


def read_plan(data: bytes, manifest: Manifest) -> tuple[Partition, ExchangePlan]:
    """Parse partition and exchange plan from the bytes of the plan file.

    Raises
    ------
    FileFormatError
        The bytes do not match the manifest, or are not a plan for its network.
    """
    manifest.plan.check(data)
    partition, plan = parse_plan(data, manifest.workers, manifest.plan.file)
    if tuple(owners.size for owners in partition.owners) != manifest.widths[1:]:
        raise FileFormatError(f"{manifest.plan.file}: its layers are not those of the manifest")
    if plan_digest(manifest.network_digest, partition, plan) != manifest.plan_digest:
        raise FileFormatError(f"{manifest.plan.file}: its digest differs from the plan digest in the manifest")
    return partition, plan


def load_plan(directory: str | os.PathLike[str]) -> tuple[Partition, ExchangePlan]:
    """Read partition and exchange plan from a directory of shards; raises FileFormatError like `read_plan`."""
    manifest = read_manifest(directory)
    return read_plan(_read(Path(directory) / manifest.plan.file), manifest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read ({error.strerror})") from error
