"""Checkpoints of a predicted run, and the attempts in which its functions hand it on at their time limit.

How often to store checkpoints is Young's first-order optimum (J. W. Young, CACM 17(9), 1974): with checkpoints that
cost as much as delta seconds of the run, and losses every mu seconds on average, an interval of sqrt(2 delta mu).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fsd_inference.cost.model import run_cost
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.course import Attempt, Course
from fsd_inference.forecast.memory import row_bytes
from fsd_inference.forecast.payloads import Payloads
from fsd_inference.forecast.speed import Speed
from fsd_inference.forecast.times import RunTimes
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.work import Work
from fsd_inference.limits import COORDINATOR_END_S
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.prediction import FunctionTime
from fsd_inference.usage import Usage

FAILURE_S = 1.8e6
"""Mean seconds until a function fails, assumed: Lambda's service level agreement (2022) is that 99.95% of a month's
requests are answered without an error of the service, and a function runs for 900 s by default."""
_SLOWER = 2.0  # factor by which a run may take longer than it is predicted to: without checkpoints it would fail then


@dataclass(frozen=True, slots=True)
class Stored:
    """What a rank's checkpoint takes.

    Attributes
    ----------
    size : float
        Bytes of the checkpoints of all ranks at a layer, on average.
    pack_s : float
        Processor time of a rank to pack its rows and to have them stored, in seconds.
    put_s : float
        Seconds until they are stored; only the next checkpoint waits for that.
    """

    size: float
    pack_s: float
    put_s: float


def stored(
    plan: ExchangePlan,
    work: Work,
    payloads: Payloads,
    timing: Timing,
    speed: Speed,
    weights: Sequence[float] | None = None,
) -> Stored:
    """Return what a checkpoint takes; parameters as for `predict_times`."""
    sizes = np.array(work.inputs[1:], np.float64) * row_bytes(plan, payloads)
    size = float(np.average(sizes, weights=None if weights is None else weights[:-1])) if sizes.size else 0.0
    each, rate = size / plan.workers, timing["cpu.pack_bytes_per_s"]
    pack_s = (timing["cpu.put_s"] + each / rate + each / timing["cpu.put_bytes_per_s"]) / speed.one
    travelling = each / min(timing["connection.bytes_per_s"], timing["network.bytes_per_s"])
    return Stored(size, pack_s, timing.latency("put").mean_s + travelling)


@dataclass(frozen=True, slots=True)
class FunctionLimit:
    """What the time limit of functions leaves for an attempt, in seconds.

    Attributes
    ----------
    first_s, later_s : float
        From the start of rank 0 until the first attempt, and a later one, has to hand on.
    between_s : float
        From the end of an attempt to the start of rank 0 in the next one.
    """

    first_s: float
    later_s: float
    between_s: float


def function_limit(timing: Timing, timeout_s: float, lane_wait_s: float = 0.0) -> FunctionLimit:
    """Return what a time limit of `timeout_s` seconds leaves.

    Parameters
    ----------
    timing : Timing
    timeout_s : float
        Timeout of the functions, the coordinator's included, which begins before all ranks.
    lane_wait_s : float
        Seconds for which an attempt waits until the queues are purged that the one before has used; the coordinator's
        time runs meanwhile.
    """
    begin, cold = timing.latency("begin").mean_s, timing.latency("cold").mean_s
    whole = timeout_s - COORDINATOR_END_S - begin
    # The client sees the end of one attempt, lists the checkpoints and has another coordinator start rank 0.
    between = timing["client.after_s"] + timing.latency("get").mean_s + timing["client.before_s"] + 2 * begin
    return FunctionLimit(whole - cold, whole - lane_wait_s, between + lane_wait_s)


@dataclass(frozen=True, slots=True)
class Prices:
    """What a run pays for by the second and by the checkpoint, in dollars.

    Attributes
    ----------
    functions_usd_per_s : float
        All functions.
    exchange_usd : float
        All requests and bytes of the exchange of a run that is not handed on.
    put_usd : float
        A PUT.
    """

    functions_usd_per_s: float
    exchange_usd: float
    put_usd: float

    @classmethod
    def of_run(
        cls, times: RunTimes, functions: Iterable[FunctionTime], exchange: Usage | None, prices: PriceTable
    ) -> Prices:
        """Return what a run pays that is predicted without hand-ons; `exchange` is None if it uses no services."""
        functions_usd = run_cost(Usage(), functions, prices, samples=1).usd
        if exchange is None:
            return cls(functions_usd / times.wall_s, 0.0, 0.0)
        exchange_usd = run_cost(exchange, (), prices, samples=1).usd
        return cls(functions_usd / times.wall_s, exchange_usd, prices["s3.put"].usd(1))


class HandingOn:
    """The checkpoints and attempts of a run of which the times without them are known.

    Parameters
    ----------
    times : RunTimes
        Times of the run as if no time limit existed, without checkpoints.
    workers : int
        Number of ranks P.
    weights : sequence of float
        Number of layers that each layer of `times` represents.
    takes : Stored
        What a checkpoint takes.
    limit : FunctionLimit or None
        None for processes, which have no time limit.
    """

    def __init__(
        self, times: RunTimes, workers: int, weights: Sequence[float], takes: Stored, limit: FunctionLimit | None
    ) -> None:
        self._times = times
        self._workers = workers
        self._takes = takes
        self._limit = limit
        self.layers = round(sum(weights))
        ends, seconds = np.cumsum([0.0, *weights]), np.cumsum([0.0, *times.layers_s])
        self._clock = np.interp(np.arange(self.layers + 1), ends, seconds)  # seconds until the layers are computed
        self._mean_s = sum(times.layers_s) / self.layers
        # An attempt that resumes sends once more what the layer before its first one sends.
        self._resend_s = max(0.0, self._mean_s - sum(times.compute_s) / self.layers)
        self._open_s = times.launch_s + times.load_s

    @property
    def checkpoint_bytes(self) -> float:
        """Bytes of the checkpoints of all ranks at a layer, on average."""
        return self._takes.size

    @property
    def may_outlive(self) -> bool:
        """Whether the run takes longer than its functions may, or could although it is predicted not to."""
        return self._limit is not None and _SLOWER * self._times.run_s > self._limit.first_s

    def choose(self, prices: Prices) -> int:
        """Return the number of layers between checkpoints that costs least; 0 if none are worth their price."""
        cost = prices.functions_usd_per_s + prices.exchange_usd / max(sum(self._times.layers_s), 1e-9)
        usd = self._workers * prices.put_usd + self._takes.pack_s * prices.functions_usd_per_s
        losses = self._workers / FAILURE_S
        if self._limit is not None and self.may_outlive:
            losses += 1 / max(self._limit.later_s, 1e-9)
        every = max(1, round(math.sqrt(2 * usd / cost / losses) / max(self._mean_s, 1e-9)))
        if self.may_outlive:
            while every > 1 and self.course(every) is None:
                every //= 2
        return every if every < self.layers else 0

    def course(self, every: int) -> Course | None:
        """Return the attempts of the run with checkpoints after each `every` layers; None if it cannot be handed on."""
        layers, attempts, first = self.layers, list[Attempt](), 0
        each_s = self._takes.pack_s + max(0.0, self._takes.put_s - every * self._mean_s)
        while True:
            numbers = np.arange(first, layers + 1)
            count = (np.minimum(numbers, layers - 1) - first) // every if every else np.zeros(numbers.size)
            opened_s = self._open_s + self._resend_s * (first > 0)
            done_s = opened_s + self._clock[first:] - self._clock[first] + count * each_s
            whole_s = float(done_s[-1]) + self._times.store_s
            limit_s = math.inf
            if self._limit is not None:
                limit_s = self._limit.later_s if attempts else self._limit.first_s
            if whole_s <= limit_s:
                return Course(layers, every, (*attempts, Attempt(first, layers, whole_s)))
            reached = first + int(np.searchsorted(done_s, limit_s, side="right")) - 1
            following = first + (min(reached, layers - 1) - first) // every * every if every else first
            if following <= first:
                return None
            attempts.append(Attempt(first, reached, limit_s))
            first = following

    def times(self, course: Course) -> RunTimes:
        """Return the times of the run with its checkpoints and hand-ons."""
        times, attempts = self._times, course.attempts
        again_s = sum(attempt.run_s for attempt in attempts) - times.run_s
        if self._limit is not None:
            again_s += (len(attempts) - 1) * self._limit.between_s
        running_s = sum(attempt.run_s - times.launch_s / 2 for attempt in attempts)
        return replace(
            times,
            wall_s=times.wall_s + again_s,
            functions_s=self._workers * running_s,
            attempts=len(attempts),
            again_s=again_s,
        )
