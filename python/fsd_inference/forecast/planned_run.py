"""A run as the planner prices it: its times and its exchange, with checkpoints and hand-ons if they were asked for."""

from __future__ import annotations

from dataclasses import dataclass

from fsd_inference.config import RunSettings
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.counts import count_exchange
from fsd_inference.forecast.course import Course
from fsd_inference.forecast.cut import Thinned
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.handing_on import HandingOn, Prices, function_limit, stored
from fsd_inference.forecast.options import Question
from fsd_inference.forecast.speed import Speed, vcpus
from fsd_inference.forecast.times import RunTimes
from fsd_inference.forecast.timing import Timing
from fsd_inference.prediction import FunctionTime
from fsd_inference.usage import Usage


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A predicted run.

    Attributes
    ----------
    times : RunTimes
    course : Course
        Its attempts and checkpoints.
    exchange : Usage
        Requests and bytes of the exchange, in all attempts.
    is_stuck : bool
        Whether the run takes longer than its functions may, and no checkpoint would be complete before. Then times and
        exchange are those of functions without a time limit.
    """

    times: RunTimes
    course: Course
    exchange: Usage
    is_stuck: bool = False

    @property
    def note(self) -> str:
        """The checkpoints and hand-ons, as the end of a sentence; empty if there are none."""
        said = f"; a checkpoint every {self.course.every} layers" if self.course.every else ""
        if self.times.attempts > 1:
            said += f", {self.times.attempts} invocations in a row of each function"
        return said


def whole_run(thinned: Thinned, times: RunTimes, exchange: Usage) -> PlannedRun:
    """Return a run without checkpoints."""
    return PlannedRun(times, Course.whole(round(sum(thinned.weights)), run_s=times.run_s), exchange)


def checkpointed_run(
    thinned: Thinned,
    settings: RunSettings,
    channel: str,
    run: PlannedRun,
    functions: tuple[FunctionTime, ...],
    question: Question,
    timing: Timing,
    prices: PriceTable,
    limits: ChannelLimits,
) -> PlannedRun:
    """Return a run with the checkpoints of a question, handed on if it takes longer than a function may.

    Parameters
    ----------
    thinned : Thinned
        The sample of the partitioned network of which the run's times are.
    settings : RunSettings
    channel : {"serial", "queue", "object"}
    run : PlannedRun
        The run without checkpoints.
    functions : tuple of FunctionTime
        The functions of that run: the workers', and the coordinator's.
    question, timing, prices, limits
        As the planner has them.
    """
    cut, times, every = thinned.cut, run.times, question.checkpoint_every
    speed = Speed(timing, vcpus(functions[0].memory_mb))
    takes = stored(cut.plan, cut.work, cut.payloads, timing, speed, thinned.weights)
    # A stack has two lanes unless it is told otherwise, so that no attempt waits until the one before it is purged.
    limit = function_limit(timing, question.timeout_s)
    handing_on = HandingOn(times, settings.workers, thinned.weights, takes, limit)
    if every == "auto":
        every = handing_on.choose(Prices.of_run(times, functions, run.exchange, prices))
    course = handing_on.course(every)
    if course is None:
        return PlannedRun(times, run.course, run.exchange, is_stuck=True)
    exchange = run.exchange
    if len(course.attempts) > 1:
        weights = course.weights(thinned.weights)
        exchange = count_exchange(cut.plan, cut.payloads, settings, channel, weights=weights, limits=limits)
    return PlannedRun(handing_on.times(course), course, exchange)
