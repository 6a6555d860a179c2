"""A count of the messages that hide in the queues of a lane: received, not deleted, and not expired yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fsd_inference.limits import HIDDEN_MESSAGES
from fsd_inference.rank_report import RankReport


@dataclass(frozen=True, slots=True)
class HiddenMessages:
    """An upper bound of the messages that hide in the fullest queue of a lane.

    They are counted in two consecutive periods, each at least as long as a message lives, so that those from before the
    previous period have expired.

    Attributes
    ----------
    since : float
        Start of the current period, in seconds since the epoch on the store's clock.
    current, previous : int
        Messages received in the current and in the previous period.
    """

    since: float = 0.0
    current: int = 0
    previous: int = 0

    @property
    def total(self) -> int:
        """Messages that may still hide in the fullest queue."""
        return self.current + self.previous

    def plus(self, received: int) -> HiddenMessages:
        """Return the count after a run whose fullest queue received `received` messages."""
        return replace(self, current=self.current + received)

    def at(self, now: float, lifetime_s: float) -> HiddenMessages:
        """Return the count at a later time `now`, when messages live for `lifetime_s` seconds."""
        return HiddenMessages(now, 0, self.current) if now - self.since >= lifetime_s else self

    def to_json(self) -> dict[str, Any]:
        """Return the count as a JSON value."""
        return {"since": self.since, "current": self.current, "previous": self.previous}

    @classmethod
    def from_json(cls, value: Any) -> HiddenMessages:
        """Parse a count; raise `ValueError`, `KeyError` or `TypeError` if it is invalid."""
        return cls(float(value["since"]), int(value["current"]), int(value["previous"]))


def count_received(reports: Sequence[RankReport]) -> int | None:
    """Return the messages that the fullest queue of a lane got in a run that ended well and did not delete.

    Parameters
    ----------
    reports : sequence of RankReport
        The reports of all ranks: each frame that a rank sent to another one was one message in that one's queue.

    Returns
    -------
    int or None
        None if the reports do not say.
    """
    sent: Counter[int] = Counter()
    for report in reports:
        if report.sent_to is None:
            return None
        for target, frames, _ in report.sent_to:
            sent[target] += frames
    return min(max(sent.values(), default=0), HIDDEN_MESSAGES)
