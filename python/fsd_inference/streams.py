"""Standard streams that a program was started without, as by ``fsd ... 2>&-``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def open_descriptors() -> None:
    """Open those of descriptors 0 to 2 that are closed, on the null device.

    A file or connection would get them otherwise, and all that libraries write to their standard output or error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):  # there is no null device: nothing to be done
                _open(number)


def _open(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so most likely this one
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)


def open_streams() -> None:
    """Open the descriptors, and make `sys.stdin`, `sys.stdout` and `sys.stderr` of those that Python has not."""
    open_descriptors()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - lasts as long as the program
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
