"""Reproducible zip archives for Lambda: the same files give the same bytes."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from fsd_inference.atomic import atomic_file
from fsd_inference.aws.package.prune import is_elf
from fsd_inference.errors import FsdError

UNPACKED_LIMIT = 262_144_000
"""Maximum unpacked size in bytes of a function's zip, layers included (250 MiB; AWS's Lambda quotas, 2026-11)."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can represent


@dataclass(frozen=True, slots=True)
class ZipFacts:
    """A zip file that was written: path, zipped and unpacked size in bytes, number of files, hexadecimal SHA-256."""

    path: Path
    zipped_bytes: int
    unpacked_bytes: int
    files: int
    sha256: str


def write_zip(directory: Path, output: Path) -> ZipFacts:
    """Zip all files under `directory` to `output`, sorted by name, without modification times or owners.

    Shared libraries and a top-level file named ``bootstrap`` are executable; everyone may read all files.

    Raises
    ------
    FsdError
        If the zip exceeds Lambda's size limit.
    InputError, OutputError
        If `output` cannot be written.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    unpacked = sum(path.stat().st_size for path in files)
    if unpacked > UNPACKED_LIMIT:
        raise FsdError(
            f"the zip would have {unpacked / 1e6:.0f} MB unpacked, more than Lambda's {UNPACKED_LIMIT / 1e6:.0f} MB;"
            " deploy an image instead (docker/Dockerfile)"
        )
    with atomic_file(output) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                name = path.relative_to(directory).as_posix()
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3  # Unix, so that the file mode is used
                entry.external_attr = (0o100755 if name == "bootstrap" or is_elf(path) else 0o100644) << 16
                archive.writestr(entry, path.read_bytes())
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        zipped = temporary.stat().st_size
    return ZipFacts(output, zipped, unpacked, len(files), digest)
