"""Which code runs: a digest of this package's files, the same wherever they are installed."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_KINDS = frozenset({".py", ".so", ".json", ".txt"})


@cache
def code_digest(root: Path = Path(__file__).parents[2]) -> str:
    """Return 32 hexadecimal digits that differ where any file of the package in the folder `root` does."""
    files = sorted(path for path in root.rglob("*") if path.suffix in _KINDS and path.is_file())
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix().encode()
        data = path.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(data)))
        digest.update(data)
    return digest.hexdigest()[:32]
