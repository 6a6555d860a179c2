"""The peak memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in one unit of ``ru_maxrss``


def peak_rss_bytes() -> int:
    """Return the peak resident set size of this process in bytes.

    The value is ``VmHWM`` of ``/proc/self/status``; without it, ``ru_maxrss``, which may be too high: it survives exec,
    so a small process reports the size of the large one that started it.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:  # there is no /proc, or it is not readable
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
