"""A digest of this package's code, independent of where it is installed."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_KINDS = frozenset({".py", ".so", ".json", ".txt"})


@cache
def code_digest(root: Path = Path(__file__).parents[2]) -> str:
    """Return a digest (32 hexadecimal digits) of the names and contents of all package files in the folder `root`."""
    files = sorted(path for path in root.rglob("*") if path.suffix in _KINDS and path.is_file())
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix().encode()
        data = path.read_bytes()
        digest.update(b"%d %s %d " % (len(name), name, len(data)))
        digest.update(data)
    return digest.hexdigest()[:32]
