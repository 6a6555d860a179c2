"""The memory that this machine has left for a run."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
# Files of the limit and of what is used, and the entry of memory.stat for file contents that the kernel gives up first.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def machine_bytes() -> float:
    """Return the bytes that all processes together can still take; infinite if the machine does not say.

    The least of ``MemAvailable`` and of what the limits of this process's control groups leave.
    """
    available = (int(line.split()[1]) * 1024 for line in _lines(_MEMINFO) if line.startswith("MemAvailable:"))
    return min([*available, *_left_in_cgroups()], default=math.inf)


def process_limit() -> float:
    """Return the maximum size of the address space of a process in bytes; infinite if it is not limited."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return math.inf if limit == resource.RLIM_INFINITY else float(limit)


def rank_limit(workers: int) -> float:
    """Return the bytes that each of so many ranks on this machine may take."""
    return min(machine_bytes() / workers, process_limit())


def process_bytes() -> float:
    """Return the bytes by which this process can still grow."""
    used = sum(int(line.split()[0]) for line in _lines(_STATM)) * resource.getpagesize()
    return min(machine_bytes(), process_limit() - used)


def _left_in_cgroups() -> Iterator[float]:
    """Yield what the limit of each control group around this process leaves."""
    for line in _lines(_OWN_CGROUPS):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (_CGROUPS / "memory", _V1) if controllers else (_CGROUPS, _V2)
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield _left(folder, *names)


def _left(folder: Path, limit: str, used: str, reclaimable: str) -> float:
    most, now = (_lines(folder / name) for name in (limit, used))
    if not most or not now or most[0] == "max":  # the root group has no such files
        return math.inf
    stat = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
    return float(int(most[0]) - int(now[0]) + int(stat.get(reclaimable, 0)))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:  # there is no such file, or it is not readable
        return []
