"""The length of Lambda's init phase, which is billed where an execution environment starts cold.

Lambda does not tell a function how long its init phase took. It is taken to last from the start of the process to the
end of the handler module, which leaves out what Lambda does before it starts the process (microVM, image, extensions).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_STAT = Path("/proc/self/stat")
_STARTTIME = 19  # place of the start time after the process's name, which may contain spaces


def process_age_s() -> float:
    """Return the seconds since this process was started, to a hundredth; 0 where the kernel does not tell."""
    try:
        ticks = int(_STAT.read_text().rpartition(")")[2].split()[_STARTTIME])
    except (OSError, IndexError, ValueError):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
