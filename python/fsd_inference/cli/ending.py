"""Signals that end the program: what a command began (files, processes, an emulator) is undone, as when it fails."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def undo_when_ended() -> None:
    """Have hang-ups and terminations undo what was begun, as interrupts do, but each of them once."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it, or a shell for what is in its background
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    # The next one finds the program undoing, and ends it at once. But of a terminal that is closed both shell and
    # kernel tell, and nobody is there to lose patience.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for other in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(other) is _end:
            signal.signal(other, signal.SIG_DFL)
    if number == signal.SIGINT:
        signal.default_int_handler(number, frame)
    sys.exit(128 + number)
