"""Replacements for closed standard streams, for programs started as ``fsd ... 2>&-``."""

from __future__ import annotations

import os
import sys
from contextlib import suppress


def open_descriptors() -> None:
    """Open those of the descriptors 0 to 2 that are closed on the null device.

    Otherwise the next file or connection would get that descriptor, and receive all that libraries write to their
    standard output or error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):  # without a null device, the descriptor stays closed
                _open(number)


def _open(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, most likely this one
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
    os.set_inheritable(number, True)


def open_streams() -> None:
    """Open closed standard descriptors, and set those of `sys.stdin`, `sys.stdout` and `sys.stderr` that are None."""
    open_descriptors()
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - open until the program ends
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
