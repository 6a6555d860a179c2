"""The polling schedule of the object channel: which source to poll next, and when, as each poll is billed.

The code reads no clock: time is an argument. Each source sends once in each step. A source's *gap* is the time from the
completion of the previous step to the source's arrival; growing gaps are smoothed by a moving average. The source with
the largest gap is expected last and is the one to poll, first well before it is expected, then at growing intervals. An
object found at the first poll may have been there for long, so a smaller gap is adopted at once: ranks wait for each
other, and gaps that shrink slowly would delay all of them for many steps.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from fsd_inference.errors import SettingError


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """The parameters of the polling schedule.

    Attributes
    ----------
    aim : float
        Time of the first poll as a fraction of the expected gap.
    shortest_s, longest_s : float
        Bounds of the interval between polls in seconds. It starts at an eighth of the gap and grows by half each time.
    memory : float
        Weight of the old gap in the moving average when a larger one is measured.
    """

    aim: float = 0.5
    shortest_s: float = 0.01
    longest_s: float = 0.5
    memory: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.aim < 1 and 0 <= self.memory < 1):
            raise SettingError(f"aim and memory must be at least 0 and below 1, not {self.aim} and {self.memory}")
        if not 0 < self.shortest_s <= self.longest_s:
            raise SettingError(
                f"poll intervals need 0 < shortest_s <= longest_s, not {self.shortest_s} and {self.longest_s}"
            )


_UNKNOWN = float("inf")  # a gap that has not been measured yet


class Pace:
    """The polling schedule for the sources of one kind of frame.

    Parameters
    ----------
    settings : PaceSettings
        Parameters of the schedule.
    """

    def __init__(self, settings: PaceSettings) -> None:
        self._settings = settings
        self._gaps: dict[int, float] = {}
        self._step: Hashable = None
        self._base: float | None = None  # when the previous step was complete
        self._latest: float | None = None  # time of the last arrival
        self._polled: int | None = None
        self._poll_at: float | None = None  # set once a poll has found nothing
        self._interval = 0.0

    def begin(self, step: Hashable) -> None:
        """Set the step to poll for; its gaps count from the last arrival of the previous step."""
        if step != self._step:
            self._step = step
            self._base = self._latest
            self._poll_at = None

    def choose(self, sources: Iterable[int]) -> int:
        """Return the source expected last: the one with the largest gap, an unknown gap counting as the largest.

        Ranks are started in ascending order, so among unknown gaps the highest rank is the most likely to be last.
        """
        candidates, gaps = list(sources), self._gaps
        known = [gaps.get(source, _UNKNOWN) for source in candidates]
        longest = max(known)
        if known.count(longest) == 1:
            return candidates[known.index(longest)]
        last = [source for source, gap in zip(candidates, known, strict=True) if gap == longest]
        return self._polled if self._polled in last else max(last)

    def poll_at(self, source: int) -> float:
        """Return when to poll `source`; a time in the past means now."""
        if self._poll_at is not None:
            return self._poll_at
        if self._base is None or source not in self._gaps:
            return 0.0
        return self._base + self._settings.aim * self._gaps[source]

    def missed(self, source: int, now: float) -> None:
        """Record that a poll of `source` found nothing, and schedule the next one."""
        if self._poll_at is None:
            self._interval = self._gaps.get(source, 0.0) / 8
        else:
            self._interval *= 1.5
        self._interval = min(max(self._interval, self._settings.shortest_s), self._settings.longest_s)
        self._polled = source
        self._poll_at = now + self._interval

    def came(self, source: int, there: Iterable[int], now: float) -> None:
        """Record that the polled source has arrived, and those in `there` no later: their gaps are at most as large."""
        if self._base is not None:
            gap = now - self._base
            known = self._gaps.get(source, gap)
            largest = self._gaps[source] = gap + self._settings.memory * min(known - gap, 0.0)
            for other in there:
                if self._gaps.get(other, _UNKNOWN) > largest:
                    self._gaps[other] = largest
        self._polled = source
        self._poll_at = None
        self._latest = now
