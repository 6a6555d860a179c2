"""Frozen settings, each with its unit, its default and why."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from fsd_inference.errors import SettingError


@dataclass(frozen=True, slots=True)
class Clocks:
    """The three clocks of a run, in seconds.

    Attributes
    ----------
    start_s : float
        A child that has not reported by then is a `StartError`.
    stall_s : float
        No frame from a rank that is waited for, for so long, is a `StallError`.
    run_s : float
        Every run ends by then, measured from the launch of rank 0 (the deadline).

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> fsd.Clocks(run_s=60.0).stall_s
    60.0
    """

    start_s: float = 30.0
    stall_s: float = 60.0
    run_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("start_s", "stall_s", "run_s"):
            if not getattr(self, name) > 0:
                raise SettingError(f"clock {name} must be a positive number of seconds, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How a request that was throttled, failed in the service or lost its connection is repeated.

    The SDKs' own retries are off, because every request is counted where it is made.

    Attributes
    ----------
    attempts : int
        Requests at most, the first one included.
    base_s, cap_s : float
        The pause before repeat i is drawn evenly from 0 to min(cap_s, base_s * 2**i) seconds ("full jitter").
    """

    attempts: int = 6
    base_s: float = 0.1
    cap_s: float = 5.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise SettingError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.base_s <= self.cap_s:
            raise SettingError(f"retry pauses need 0 <= base_s <= cap_s, not {self.base_s} and {self.cap_s}")

    def pauses(self) -> Iterator[float]:
        """Yield the pause in seconds before each repeat; ends when no attempt is left."""
        for repeat in range(self.attempts - 1):
            yield random.uniform(0, min(self.cap_s, self.base_s * 2**repeat))  # noqa: S311 -- spreads load, no secret


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How one run is carried out.

    Attributes
    ----------
    workers : int
        P, the number of ranks.
    branching : int
        b: rank r starts ranks r*b+1 .. r*b+b that are < P.
    micro_batches : int
        M: the batch is cut into M nearly equal runs of samples; more hide latency and multiply requests.
    threads : int
        Kernel threads of each worker.
    overlap : bool
        Rows that other ranks need are computed first, and sent while the rest is computed.
    output : str
        ``"rows"`` (all output activations), ``"argmax"`` or ``"any"`` (one value a sample).
    clocks : Clocks
        Start, stall and run clock.
    spill_bytes : int
        Frames that came early are kept packed; past so many bytes they go to local disk.
    """

    workers: int = 1
    branching: int = 4
    micro_batches: int = 1
    threads: int = 1
    overlap: bool = True
    output: str = "rows"
    clocks: Clocks = Clocks()
    spill_bytes: int = 1 << 29

    def __post_init__(self) -> None:
        for name in ("workers", "branching", "micro_batches", "threads", "spill_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.output not in OUTPUTS:
            raise SettingError(f"output must be one of {', '.join(OUTPUTS)}, not {self.output!r}")


OUTPUTS = ("rows", "argmax", "any")
