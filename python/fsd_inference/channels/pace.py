"""When to look for what comes once a step from each of several sources, where each look is billed.

Pure: time is an argument. A source's *gap* is how long after the step before it came, a moving average where gaps grow.
The source with the largest gap is expected last and is the one to poll, first well before it is expected, then at
growing intervals. What is found at the first poll may have been there for long, so then the gap shrinks at once: ranks
wait for each other, and gaps that shrink slowly hold all of them up for many steps.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from fsd_inference.errors import SettingError


@dataclass(frozen=True, slots=True)
class PaceSettings:
    """How eagerly missing objects are polled.

    Attributes
    ----------
    aim : float
        When the first poll is made, as a share of the expected gap.
    shortest_s, longest_s : float
        Bounds of the interval between polls. It begins at an eighth of the gap and grows by half each time.
    memory : float
        Weight of what was known of a gap when a larger one is seen.
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


_UNKNOWN = float("inf")  # a gap that nothing has shown yet


class Pace:
    """Which source to poll, and when.

    Parameters
    ----------
    settings : PaceSettings
        How eagerly.
    """

    def __init__(self, settings: PaceSettings) -> None:
        self._settings = settings
        self._gaps: dict[int, float] = {}
        self._step: Hashable = None
        self._base: float | None = None  # when the step before was complete
        self._latest: float | None = None  # when something last came
        self._polled: int | None = None
        self._poll_at: float | None = None  # set by a miss
        self._interval = 0.0

    def begin(self, step: Hashable) -> None:
        """Say which step is missing; the base of its gaps is when the last source of the step before came."""
        if step != self._step:
            self._step = step
            self._base = self._latest
            self._poll_at = None

    def choose(self, sources: Iterable[int]) -> int:
        """Return the source expected last: the largest gap; unknown ones before that, the highest first.

        Ranks are started in ascending order, so before anything is known the highest is the likeliest to come last.
        """
        candidates, gaps = list(sources), self._gaps
        known = [gaps.get(source, _UNKNOWN) for source in candidates]
        longest = max(known)
        if known.count(longest) == 1:
            return candidates[known.index(longest)]
        last = [source for source, gap in zip(candidates, known, strict=True) if gap == longest]
        return self._polled if self._polled in last else max(last)

    def poll_at(self, source: int) -> float:
        """Return when to poll `source`; a time in the past means at once."""
        if self._poll_at is not None:
            return self._poll_at
        if self._base is None or source not in self._gaps:
            return 0.0
        return self._base + self._settings.aim * self._gaps[source]

    def missed(self, source: int, now: float) -> None:
        """Note that `source` was looked for and was not there."""
        if self._poll_at is None:
            self._interval = self._gaps.get(source, 0.0) / 8
        else:
            self._interval *= 1.5
        self._interval = min(max(self._interval, self._settings.shortest_s), self._settings.longest_s)
        self._polled = source
        self._poll_at = now + self._interval

    def came(self, source: int, there: Iterable[int], now: float) -> None:
        """Note that the polled source has come, and that those `there` had come by then: their gaps are no larger."""
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
