"""Immutable settings of runs: timeouts, retries, tuning, functions and the handling of failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fsd_inference.errors import SettingError
from fsd_inference.limits import MOST_MICRO_BATCHES

_MOST_DOUBLINGS = 64  # of a pause, which has long reached its cap: keeps the power within the range of floats


@dataclass(frozen=True, slots=True)
class Clocks:
    """The timeouts of an attempt of a run, called clocks, in seconds.

    Attributes
    ----------
    start_s : float
        Start clock: a child rank that has not reported by then causes a `StartError`.
    stall_s : float
        Stall clock: no frame from an awaited rank for this long causes a `StallError`.
    run_s : float
        Run clock, measured from the launch of rank 0: the attempt ends by this deadline.

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
    """Retry policy of requests that were throttled, failed in the service or lost their connection.

    The retries of the SDKs are disabled, because each request must be counted where it is made.

    Attributes
    ----------
    attempts : int
        Maximum number of attempts, the first one included.
    base_s, cap_s : float
        Parameters of the exponential backoff with full jitter: the pause before retry i (from 0) is uniformly random
        in 0 to min(cap_s, base_s * 2**i) seconds.
    throttled_s : float
        Seconds from the first attempt for which a throttled request is retried, also after `attempts`: what the
        service refuses for its rate, it accepts later.
    """

    attempts: int = 6
    base_s: float = 0.1
    cap_s: float = 5.0
    throttled_s: float = 0.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise SettingError(f"attempts must be at least 1, not {self.attempts}")
        if not 0 <= self.base_s <= self.cap_s:
            raise SettingError(f"retry pauses need 0 <= base_s <= cap_s, not {self.base_s} and {self.cap_s}")
        if self.throttled_s < 0:
            raise SettingError(f"throttled_s must be at least 0 seconds, not {self.throttled_s}")

    def pause_s(self, tried: int, waited_s: float, uniform: Callable[[], float], *, throttled: bool) -> float | None:
        """Return the pause before the next attempt in seconds; None if there is to be none.

        Parameters
        ----------
        tried : int
            Number of attempts so far, at least 1.
        waited_s : float
            Seconds since the first attempt.
        uniform : callable
            Returns a random number of 0 to 1.
        throttled : bool
            Whether the last attempt was throttled.
        """
        if tried >= self.attempts and not (throttled and waited_s < self.throttled_s):
            return None
        return uniform() * min(self.cap_s, self.base_s * 2.0 ** min(tried - 1, _MOST_DOUBLINGS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Performance settings of the workers of a run; none of them changes a single bit of the answer.

    Attributes
    ----------
    branching : int
        Branching factor b of the launch tree: rank r starts ranks r*b+1 .. r*b+b that are < P.
    micro_batches : int
        Number of micro-batches M of nearly equal size; more of them hide latency but multiply requests.
    threads : int
        Kernel threads per worker; leave it at 1 for Lambda functions, whose threads follow from their memory.
    overlap : bool
        Compute the rows that other ranks need first, and send them while the other rows are computed.

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
            check_count(name, getattr(self, name))
        if self.micro_batches > MOST_MICRO_BATCHES:
            raise SettingError(f"micro_batches must be at most {MOST_MICRO_BATCHES:,}, not {self.micro_batches:,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSettings:
    """Settings of runs on the Lambda functions of a stack.

    Attributes
    ----------
    memory_mb : int or None
        Memory of the worker functions to use, in MB; None for the smallest that is estimated to be large enough.
    synchronous : bool
        Invoke the coordinator function synchronously, over a connection that stays open until the run has ended,
        instead of invoking it asynchronously and polling its status.

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
            check_count("memory_mb", self.memory_mb)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailurePolicy:
    """Retry policy of runs: the number of attempts, the timeouts after which one has failed, and where the next starts.

    Attributes
    ----------
    attempts : int
        Maximum number of attempts of a run, the first one included; only retryable errors lead to another attempt.
    clocks : Clocks
        Timeouts of each attempt.
    checkpoint_every : int or "auto"
        Number of layers after which each worker stores its activations, so that another attempt starts there instead
        of at the first layer; 0 for no checkpoints. For workers that are processes or functions.
        ``"auto"``: the number that costs least on AWS, by a prediction of each run, which takes seconds.
    restart_stragglers : bool
        Whether an attempt in which one worker is much slower than the others ends, so that another one overtakes it
        from the last checkpoint, if that is estimated to save time. All workers of both attempts are paid for.

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
    checkpoint_every: int | Literal["auto"] = 0
    restart_stragglers: bool = False

    def __post_init__(self) -> None:
        check_count("attempts", self.attempts)
        if self.checkpoint_every != "auto":
            check_checkpoints(self.checkpoint_every, self.restart_stragglers)


OUTPUTS = ("rows", "argmax", "any")
WIRES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(Tuning):
    """All settings that the ranks of a run receive.

    Attributes
    ----------
    branching, micro_batches, threads, overlap
        See `Tuning`.
    workers : int
        Number of workers P, the ranks.
    output : str
        ``"rows"`` for all output activations, ``"argmax"`` or ``"any"`` for the largest output of each sample and its
        neuron.
    wire : str
        Number format to which ranks round the rows that they send: ``"float32"`` (as computed), ``"bfloat16"`` or
        ``"float16"``. Any but the first changes the answer.
    verify : bool
        Whether each rank computes a digest of its part of each layer's outputs.
    clocks : Clocks
        Timeouts of an attempt.
    checkpoint_every : int
        Number of layers between checkpoints, see `FailurePolicy`.
    restart_stragglers : bool
        See `FailurePolicy`.
    """

    workers: int = 1
    output: str = "rows"
    wire: str = "float32"
    verify: bool = False
    clocks: Clocks = Clocks()
    checkpoint_every: int = 0
    restart_stragglers: bool = False

    def __post_init__(self) -> None:
        Tuning.__post_init__(self)  # super() fails in dataclasses with slots
        check_count("workers", self.workers)
        check_checkpoints(self.checkpoint_every, self.restart_stragglers)
        if self.output not in OUTPUTS:
            raise SettingError(f"output must be one of {', '.join(OUTPUTS)}, not {self.output!r}")
        if self.wire not in WIRES:
            raise SettingError(f"wire must be one of {', '.join(WIRES)}, not {self.wire!r}")
        if self.wire != "float32" and self.workers == 1:
            raise SettingError(
                f"wire {self.wire} rounds what workers send to each other, and one worker sends nothing: leave it out"
            )


def check_checkpoints(every: object, restart_stragglers: bool = False) -> None:
    """Raise SettingError unless `every` is a number of layers between checkpoints, or if stragglers need some."""
    if not isinstance(every, int) or every < 0:
        raise SettingError(f"checkpoint_every must be a whole number of at least 0, not {every!r}")
    if restart_stragglers and not every:
        raise SettingError("another attempt overtakes a straggler from a checkpoint: set checkpoint_every too")


def check_count(name: str, value: object) -> None:
    """Raise SettingError unless a setting is a whole number of at least 1."""
    if not isinstance(value, int) or value < 1:
        raise SettingError(f"{name} must be a whole number of at least 1, not {value!r}")
