"""How much memory this process has held."""

from __future__ import annotations

from pathlib import Path


def peak_rss_bytes() -> int:
    """Return the most memory that this program has had resident.

    Not ``ru_maxrss``: that survives exec, so a small process would report the size of the large one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # kernels that emulate Linux may not say
