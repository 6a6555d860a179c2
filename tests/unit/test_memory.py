"""Memory figures of a process cover that process only."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from fsd_inference.engine.memory import peak_rss_bytes

SIZE = 200_000_000


def test_a_process_does_not_report_the_memory_of_the_one_that_started_it() -> None:
    held = np.ones(SIZE, np.uint8)
    code = "from fsd_inference.engine.memory import peak_rss_bytes; print(peak_rss_bytes())"
    started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert peak_rss_bytes() >= held.nbytes
    assert 0 < int(started.stdout) < SIZE
