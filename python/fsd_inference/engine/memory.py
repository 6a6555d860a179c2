"""How much memory this process has held."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ``ru_maxrss``


def peak_rss_bytes() -> int:
    """Return the most memory that this program has had resident.

    Where the kernel does not show that it is ``ru_maxrss``, which may be too much: it survives exec, so a small process
    reports the size of the large one that started it.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # there is no /proc, or it is closed to us
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
