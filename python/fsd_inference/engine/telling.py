"""The log messages of a running rank: its events, and what it waits for when it is idle."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fsd_inference.channels.base import Expected
from fsd_inference.engine.messages import Arrived, Computed, Loaded, Ticked
from fsd_inference.logs import Logger

_SLOW_S = 5.0
"""Seconds without an event after which a wait is logged, and again after each such period."""


class Teller:
    """The logger of one rank's events.

    Parameters
    ----------
    run : str
        Run id.
    rank : int
        This rank.
    now : callable
        Returns the time in seconds.
    """

    def __init__(self, run: str, rank: int, now: Callable[[], float]) -> None:
        self._log = Logger(__name__, run=run, rank=rank)
        self._now = now
        self._last_event = self._last_logged = now()

    def tell(self, event: object, expected: Sequence[Expected]) -> None:
        """Log an event at DEBUG; if there was none for a while, log the wait at INFO.

        Parameters
        ----------
        event : object
            An event of the state machine; `Ticked` and any other object only say that time has passed.
        expected : sequence of Expected
            Frames that have not arrived yet.
        """
        if not self._log.isEnabledFor(logging.INFO):
            return
        now = self._now()
        if type(event).__module__ == Arrived.__module__ and not isinstance(event, Ticked):
            self._last_event = self._last_logged = now
            self._log.debug("%s", _Brief(event))
        elif now - self._last_logged >= _SLOW_S:
            self._last_logged = now
            self._log.info("has waited %.0f s for %s", now - self._last_event, _waited_for(expected))


class _Brief:
    """A one-line description of an event without its payload, formatted only if the message is emitted."""

    def __init__(self, event: object) -> None:
        self._event = event

    def __str__(self) -> str:
        match self._event:
            case Loaded(plan=plan, layers=layers):
                return f"loaded {plan.layers if layers is None else layers} of {plan.layers} layers, and its input"
            case Computed(step=step, phase=phase):
                return f"computed {phase.value} of layer {step.layer}, micro-batch {step.micro_batch}"
            case Arrived(kind=kind, layer=layer, micro_batch=micro_batch, source=source):
                return f"{kind.name} of layer {layer}, micro-batch {micro_batch} from rank {source}"
            case _:
                return str(self._event)


def _waited_for(expected: Sequence[Expected]) -> str:
    """Return a description of the missing frames: their sources, grouped by kind and step."""
    ranks: dict[str, list[int]] = {}
    for each in expected:
        what = f"{each.kind.name} of layer {each.layer}, micro-batch {each.micro_batch}"
        ranks.setdefault(what, []).append(each.source)
    found = [f"{what} from ranks {', '.join(map(str, sorted(sources)))}" for what, sources in ranks.items()]
    return "; ".join(found) or "its own work, or for its children to start"
