"""What a rank's log says while it runs: what happens, and what is waited for once nothing has happened for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from fsd_inference.channels.base import Expected
from fsd_inference.engine.messages import Arrived, Computed, Loaded, Ticked
from fsd_inference.logs import Logger

_SLOW_S = 5.0
"""A wait is told of once it has lasted so long, and again after each such time."""


class Teller:
    """Logs the events of one rank.

    Parameters
    ----------
    run : str
    rank : int
    now : callable
        Returns the time in seconds.
    """

    def __init__(self, run: str, rank: int, now: Callable[[], float]) -> None:
        self._log = Logger(__name__, run=run, rank=rank)
        self._now = now
        self._moved = self._told = now()

    def tell(self, event: object, expected: Sequence[Expected]) -> None:
        """Log an event at DEBUG, or at INFO for how long and for what has been waited.

        Parameters
        ----------
        event : object
            One for the state machine; anything else, and `Ticked`, says only that time has passed.
        expected : sequence of Expected
            What has not come yet.
        """
        if not self._log.isEnabledFor(logging.INFO):
            return
        now = self._now()
        if type(event).__module__ == Arrived.__module__ and not isinstance(event, Ticked):
            self._moved = self._told = now
            self._log.debug("%s", _Brief(event))
        elif now - self._told >= _SLOW_S:
            self._told = now
            self._log.info("has waited %.0f s for %s", now - self._moved, _waited_for(expected))


class _Brief:
    """An event in words, put together only if it is written, without what it carries."""

    def __init__(self, event: object) -> None:
        self._event = event

    def __str__(self) -> str:
        match self._event:
            case Loaded():
                return "loaded its shard and its input"
            case Computed(step=step, phase=phase):
                return f"computed {phase.value} of layer {step.layer}, micro-batch {step.micro_batch}"
            case Arrived(kind=kind, layer=layer, micro_batch=micro_batch, source=source):
                return f"{kind.name} of layer {layer}, micro-batch {micro_batch} from rank {source}"
            case _:
                return str(self._event)


def _waited_for(expected: Sequence[Expected]) -> str:
    """Return what frames are waited for: ranks by kind and step."""
    ranks: dict[str, list[int]] = {}
    for each in expected:
        what = f"{each.kind.name} of layer {each.layer}, micro-batch {each.micro_batch}"
        ranks.setdefault(what, []).append(each.source)
    found = [f"{what} from ranks {', '.join(map(str, sorted(sources)))}" for what, sources in ranks.items()]
    return "; ".join(found) or "its own work, or for its children to start"
