"""A main program that runs the emulator until standard input closes, then deletes its directory and kills it.

Its parent process holds the other end of standard input, so that the emulator never outlives it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import threading


def _end_with_starter() -> None:
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # the group that the emulator leads


if __name__ == "__main__":
    threading.Thread(target=_end_with_starter, name="starter", daemon=True).start()
    runpy.run_module("ministack", run_name="__main__", alter_sys=True)
