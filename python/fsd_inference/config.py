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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How the workers of a run share its work; none of it changes a bit of the answer.

    Attributes
    ----------
    branching : int
        b: rank r starts ranks r*b+1 .. r*b+b that are < P.
    micro_batches : int
        M: the batch is cut into M nearly equal runs of samples; more hide latency and multiply requests.
    threads : int
        Kernel threads of each worker. Those of functions follow from their memory.
    overlap : bool
        Rows that other ranks need are computed first, and sent while the rest is computed.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> network = fsd.random_network([64, 48, 32], connections=8)
    >>> with fsd.Session(network, channel="local", workers=2, tuning=fsd.Tuning(micro_batches=2)) as session:
    ...     answer = session.infer([[1.0] * 64, [0.0] * 64])
    >>> answer.outputs.shape
    (2, 32)
    """

    branching: int = 4
    micro_batches: int = 1
    threads: int = 1
    overlap: bool = True

    def __post_init__(self) -> None:
        for name in ("branching", "micro_batches", "threads"):
            _check_count(name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """How a stack's functions carry out runs.

    Attributes
    ----------
    memory_mb : int or None
        Size of the worker functions to use; None for the smallest that an estimate finds large enough.
    synchronous : bool
        Hold one connection to the coordinator function until the run has ended, instead of asking how far it is.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> functions = fsd.FunctionSettings(memory_mb=1769)
    >>> fsd.Session("net", channel="queue", workers=8, stack="stack.json", functions=functions)  # doctest: +SKIP
    """

    memory_mb: int | None = None
    synchronous: bool = False

    def __post_init__(self) -> None:
        if self.memory_mb is not None:
            _check_count("memory_mb", self.memory_mb)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """When a run has failed, and how often it is tried.

    Attributes
    ----------
    attempts : int
        How often a run is tried in all, where trying again can help.
    clocks : Clocks
        The seconds that an attempt has to start, to go on and to end.

    Examples
    --------
    >>> import fsd_inference as fsd
    >>> once = fsd.FailurePolicy(attempts=1, clocks=fsd.Clocks(run_s=60.0))
    >>> network = fsd.random_network([8, 4], connections=2)
    >>> with fsd.Session(network, channel="local", workers=2, failures=once) as session:
    ...     session.infer([[0.0] * 8]).report.attempts
    1
    """

    attempts: int = 2
    clocks: Clocks = Clocks()

    def __post_init__(self) -> None:
        _check_count("attempts", self.attempts)


OUTPUTS = ("rows", "argmax", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(Tuning):
    """All that the ranks of one run are told of how to carry it out.

    Attributes
    ----------
    branching, micro_batches, threads, overlap
        See `Tuning`.
    workers : int
        P, the number of ranks.
    output : str
        ``"rows"`` (all output activations), ``"argmax"`` or ``"any"`` (one value a sample).
    clocks : Clocks
        Start, stall and run clock.
    spill_bytes : int
        Frames that came early are kept packed; past so many bytes they go to local disk.
    """

    workers: int = 1
    output: str = "rows"
    clocks: Clocks = Clocks()
    spill_bytes: int = 1 << 29

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)  # super() does not know a class with slots
        for name in ("workers", "spill_bytes"):
            _check_count(name, getattr(self, name))
        if self.output not in OUTPUTS:
            raise SettingError(f"output must be one of {', '.join(OUTPUTS)}, not {self.output!r}")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")
