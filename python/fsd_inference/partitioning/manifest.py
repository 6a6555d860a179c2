"""The manifest of a set of shards: the partition that they belong to, and the digest of each file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsd_inference.errors import FileFormatError, InputError
from fsd_inference.fields import load_json
from fsd_inference.partitioning.plan import PLAN_DIGEST_BYTES, PlanVolumes
from fsd_inference.partitioning.tensors import Bytes

MANIFEST_FILE = "manifest.json"
PLAN_FILE = "plan.safetensors"
_FORMAT, _VERSION = "fsd-shards", 1


@dataclass(frozen=True, slots=True)
class HeadEntry:
    """Size in bytes and hexadecimal SHA-256 of the start of a shard: all of it but its layers, whose digests it has."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Name, size in bytes and hexadecimal SHA-256 of a file.

    `head` is its part that is read first; None if the file can only be checked as a whole: the plan, and shards of
    earlier releases.
    """

    file: str
    size: int
    sha256: str
    head: HeadEntry | None = None

    def check(self, data: Bytes) -> None:
        """Raise FileFormatError unless `data` is the content of this file; retryable, since a read may go wrong."""
        self._compare(len(data), hashlib.sha256(data), self.size, self.sha256)

    def check_file(self, path: Path) -> None:
        """Raise FileFormatError unless `path` has the content of this file."""
        with path.open("rb") as file:
            self._compare(os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256"), self.size, self.sha256)

    def check_head(self, data: Bytes) -> None:
        """Raise FileFormatError unless `data` is the head of this file."""
        assert self.head is not None  # noqa: S101 - the caller has its size from there
        self._compare(len(data), hashlib.sha256(data), self.head.size, self.head.sha256)

    def _compare(self, found: int, digest: hashlib._Hash, size: int, sha256: str) -> None:
        if found != size:
            raise FileFormatError(f"{self.file}: has {found} bytes, the manifest says {size}", retryable=True)
        if digest.hexdigest() != sha256:
            raise FileFormatError(
                f"{self.file}: its digest differs from the manifest; the file has changed or is corrupt", retryable=True
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """Description of a set of shards.

    Attributes
    ----------
    workers : int
        Number of workers P.
    method : str
        Name of the partitioner.
    seed : int
        Random seed of the partitioner.
    network_digest : bytes
        `Network.digest` of the network that was partitioned.
    plan_digest : bytes
        Digest of the exchange plan, 16 bytes (see `plan.plan_digest`); frames carry it.
    widths : tuple of int
        Number of features, then the number of neurons of each layer.
    connections : int
        Number of connections of all layers.
    volumes : PlanVolumes
        Volumes that the workers exchange.
    plan : FileEntry
        The file with partition and exchange plan, without weights.
    shards : tuple of FileEntry
        The shard files, one per rank.
    output : dict or None
        JSON form of `Network.output`, for sessions that are given the shards; workers, which have no SciPy, ignore it.
    """

    workers: int
    method: str
    seed: int
    network_digest: bytes
    plan_digest: bytes
    widths: tuple[int, ...]
    connections: int
    volumes: PlanVolumes
    plan: FileEntry
    shards: tuple[FileEntry, ...]
    output: Mapping[str, Any] | None = None

    @property
    def features(self) -> int:
        """Number of features of a sample, the inputs of layer 0."""
        return self.widths[0]

    @property
    def layers(self) -> int:
        """Number of layers L."""
        return len(self.widths) - 1

    def to_bytes(self) -> bytes:
        """Return the manifest as JSON bytes."""
        value = asdict(self)
        value["network_digest"] = self.network_digest.hex()
        value["plan_digest"] = self.plan_digest.hex()
        if self.output is None:
            del value["output"]
        for entry in (value["plan"], *value["shards"]):
            if entry["head"] is None:
                del entry["head"]
        head = {"format": _FORMAT, "version": _VERSION, "features": self.features, "layers": self.layers}
        return (json.dumps(head | value, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, what: str = MANIFEST_FILE) -> Manifest:
        """Parse and check a manifest.

        Raises
        ------
        FileFormatError
            The data is not a manifest of this format and version, or is inconsistent; `what` names it in the message.
        """
        try:
            value = load_json(data)
            if value["format"] != _FORMAT:
                raise FileFormatError(f"{what}: its format is {value['format']!r}, not {_FORMAT!r}")
            if value["version"] != _VERSION:
                raise FileFormatError(
                    f"{what}: shard format {value['version']} is not known; this release reads {_VERSION}"
                )
            manifest = cls._from_json(value)
            if manifest.layers < 1:
                raise ValueError(manifest.widths)
            consistent = value["features"] == manifest.features and value["layers"] == manifest.layers
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileFormatError(f"{what}: not the manifest of a set of shards", retryable=True) from error
        if not (
            consistent
            and manifest.workers >= 1
            and len(manifest.shards) == manifest.workers
            and len(manifest.plan_digest) == PLAN_DIGEST_BYTES
            and min(manifest.widths) >= 1
        ):
            raise FileFormatError(f"{what}: its workers, layers or widths contradict each other")
        return manifest

    @classmethod
    def _from_json(cls, value: Mapping[str, Any]) -> Manifest:
        volumes = value["volumes"]
        output = value.get("output")
        if not isinstance(output, dict | None):
            raise TypeError(output)
        return cls(
            workers=int(value["workers"]),
            method=str(value["method"]),
            seed=int(value["seed"]),
            network_digest=bytes.fromhex(value["network_digest"]),
            plan_digest=bytes.fromhex(value["plan_digest"]),
            widths=tuple(int(width) for width in value["widths"]),
            connections=int(value["connections"]),
            volumes=PlanVolumes(
                int(volumes["row_sends"]),
                tuple(int(n) for n in volumes["largest_sender"]),
                tuple(int(n) for n in volumes["largest_receiver"]),
                float(volumes["imbalance"]),
                float(volumes["seconds"]),
            ),
            plan=_file_entry(value["plan"]),
            shards=tuple(_file_entry(entry) for entry in value["shards"]),
            output=output,
        )

    def shard(self, rank: int) -> FileEntry:
        """Return the file entry of the shard of a rank; raise InputError if there is no such rank."""
        if not 0 <= rank < self.workers:
            raise InputError(
                f"there is no shard of rank {rank}: the network was partitioned for {self.workers} workers"
            )
        return self.shards[rank]


def _file_entry(value: Mapping[str, Any]) -> FileEntry:
    head = value.get("head")
    entry = FileEntry(
        str(value["file"]),
        int(value["size"]),
        str(value["sha256"]),
        None if head is None else HeadEntry(int(head["size"]), str(head["sha256"])),
    )
    if entry.head is not None and not 0 < entry.head.size <= entry.size:
        raise ValueError(entry.head.size)
    # Paths and keys are built from the name, so it must not leave the folder.
    if "/" in entry.file or "\\" in entry.file or entry.file.startswith(".") or not entry.file.isprintable():
        raise ValueError(entry.file)
    return entry
