"""Signal handling: a terminated command cleans up (files, processes, an emulator) as it does when it fails."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def undo_when_ended() -> None:
    """Make SIGHUP, SIGINT and SIGTERM raise an exception, so that the command cleans up; each does so once."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # set by nohup, and by shells for background jobs
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # A second SIGINT or SIGTERM, while the program cleans up, ends it at once. A second SIGHUP is ignored: when a
    # terminal is closed, shell and kernel both send one, and no user is waiting.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for other in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(other) is _end:
            signal.signal(other, signal.SIG_DFL)
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    sys.exit(128 + number)
