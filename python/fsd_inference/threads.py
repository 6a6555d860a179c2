"""Threads that can be waited for by a caller who may be interrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Waitable(threading.Thread):
    """A daemon thread whose end an event tells.

    An interrupted `join` takes a thread that still runs for ended (CPython 3.10 to 3.12); a wait for an event does not.

    Parameters
    ----------
    work : callable
        What it does.
    name : str

    Attributes
    ----------
    ended : threading.Event
        Set once `work` has returned or raised.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        super().__init__(target=work, name=name, daemon=True)
        self.ended = threading.Event()

    def run(self) -> None:
        """Do the work, and tell."""
        try:
            super().run()
        finally:
            self.ended.set()
