"""The planner's option of one function on Lambda Managed Instances, and its comparison with functions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fsd_inference.config import RunSettings
from fsd_inference.cost.model import Billing, run_cost
from fsd_inference.cost.prices import PriceTable
from fsd_inference.forecast.coordination import count_coordination
from fsd_inference.forecast.counts import count_own
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.frames import ChannelLimits
from fsd_inference.forecast.managed import fleet_usd_a_day, managed_function
from fsd_inference.forecast.memory import MARGIN, function_mb
from fsd_inference.forecast.options import MANAGED, ManagedFleet, Option, Question
from fsd_inference.forecast.times import predict_times
from fsd_inference.forecast.timing import Timing
from fsd_inference.limits import COORDINATOR_MB, MANAGED_ENVIRONMENTS, MANAGED_INVOCATION_S
from fsd_inference.prediction import FunctionTime
from fsd_inference.units import seconds_text

_DAY_S, _MONTH_DAYS = 86_400.0, 30


def managed_option(
    cut: Cut,
    question: Question,
    instance: str,
    timing: Timing,
    prices: PriceTable,
    billing: Billing,
    *,
    is_warm: bool,
) -> tuple[Option, float]:
    """Predict and price the undivided network on one function of managed instances.

    Parameters
    ----------
    cut : Cut
        The network as a single worker runs it.
    question, timing, prices, billing
        As for `plan_options`.
    instance : str
        EC2 instance type.
    is_warm : bool
        Whether the coordinator is warm, which is a function like others; the instances have no cold start.

    Returns
    -------
    option : Option
    query_usd : float
        Cost of a query in dollars beyond that of the instances: requests and the coordinator.

    Raises
    ------
    SettingError
        The price table lacks a price that is needed.
    """
    vcpus, memory_mb = managed_function(instance)
    payloads = cut.payloads.scaled(question.samples)
    need_mb = function_mb(cut.plan, cut.work.inputs, float(cut.work.shard_bytes.max()), payloads)
    settings, limits = RunSettings(threads=vcpus), ChannelLimits(message_bytes=question.message_bytes)
    times = predict_times(
        cut.plan, cut.work, payloads, settings, "serial", timing, vcpus_each=vcpus, warm=1, limits=limits
    )
    wall_s = times.wall_s + (0.0 if is_warm else timing.latency("cold").mean_s)
    functions = (
        FunctionTime(memory_mb, question.architecture, 0.0, 1),  # its time is the instances'
        FunctionTime(COORDINATOR_MB, question.architecture, wall_s + (0.0 if is_warm else times.init_s), 1),
    )
    usage = count_own(payloads, settings, limits, cut.work.shard_bytes, is_warm=True)
    usage += count_coordination(settings, wall_s=wall_s, run_s=times.run_s, is_warm=is_warm)
    cost = run_cost(usage, functions, prices, samples=question.samples, billing=replace(billing, storage="standard"))
    a_day, queries = fleet_usd_a_day(instance, prices), question.queries_a_day
    idle = "" if queries is None else f", idle {max(0.0, 1 - queries / _a_day(wall_s)):.1%} of the day"
    option = Option(
        MANAGED,
        wall_s,
        None if queries is None else a_day / queries + cost.usd,
        need_mb / MARGIN * 2**20 / 1e6,
        f"{MANAGED_ENVIRONMENTS} instances, USD {_MONTH_DAYS * a_day:,.0f} in {_MONTH_DAYS} days{idle}",
        memory_mb=memory_mb,
        instance=instance,
        usd_a_day=a_day,
        services=None if queries is None else {**cost.by_service(), "EC2": a_day / queries},
    )
    if need_mb > memory_mb:
        said = f"memory does not fit: it needs {need_mb:,.0f} MB, a function on {instance} has {memory_mb:,}"
        return replace(option, limit="memory", problem=said), cost.usd
    if times.functions_s > MANAGED_INVOCATION_S:
        said = (
            f"a function would run for {seconds_text(times.functions_s)}, and may run for {MANAGED_INVOCATION_S:.0f} s"
        )
        return replace(option, limit="invocation", problem=said), cost.usd
    if queries is None:
        said = "its cost depends on the number of queries a day: give that"
        return replace(option, limit="rate", problem=said), cost.usd
    if queries > _a_day(wall_s):
        said = f"the instances answer {_a_day(wall_s):,.0f} queries a day, not {queries:,.0f}"
        return replace(option, limit="rate", problem=said), cost.usd
    return question.checked(option), cost.usd


def compared(option: Option, query_usd: float, others: Iterable[Option], question: Question) -> ManagedFleet | None:
    """Compare managed instances with the best feasible option that this package runs on functions.

    `option` and `query_usd` are those of `managed_option`. None if the instances cannot answer the query.
    """
    if option.usd_a_day is None or option.limit not in {None, "rate", "budget"}:
        return None
    functions = (other for other in others if not other.is_modelled_only and other.problem is None)
    best = min(functions, key=question.prefers, default=None)
    saved = 0.0 if best is None or best.usd is None else best.usd - query_usd
    return ManagedFleet(
        f"{MANAGED_ENVIRONMENTS} x {option.instance}",
        _MONTH_DAYS * option.usd_a_day,
        option.usd_a_day / saved if saved > 0 else None,
        _a_day(option.wall_s),
    )


def _a_day(wall_s: float) -> float:
    """Return the most queries a day that the instances answer, one after the other on each."""
    return MANAGED_ENVIRONMENTS * _DAY_S / wall_s
