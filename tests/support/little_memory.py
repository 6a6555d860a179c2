"""A limit of this process's address space, under which a reader that takes what a damaged file claims fails."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MORE_BYTES = 400_000_000


@contextmanager
def little_memory(more_bytes: int = _MORE_BYTES) -> Iterator[None]:
    """Limit the process to what it has and so many bytes; where there is no /proc to tell what it has, do nothing."""
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
