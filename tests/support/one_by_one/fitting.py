"""Fitting of a host's timing and of the receive model to measured runs."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fsd_inference.errors import SettingError
from fsd_inference.forecast.fitting import rest_s
from fsd_inference.forecast.receive_model import ReceiveModel
from fsd_inference.forecast.timing import Sourced
from fsd_inference.limits import BATCH_ENTRIES
from fsd_inference.partitioning.plan import ExchangePlan
from fsd_inference.run_report import RunReport
from fsd_inference.simulator import Scenario
from tests.support.one_by_one.host import Host
from tests.support.one_by_one.simulation import simulate_one_by_one

_PASSES = 6
_STEEPEST, _FLATTEST = 1.0, 0.25  # bounds of d log(time) / d log(factor)


def fit_host(observed: Sequence[tuple[Scenario, Host, RunReport]]) -> dict[str, Sourced]:
    """Return timing and host values with which simulated runs take as long as the measured ones.

    Each factor is fitted in turn: for the caller's own work, and its work for a lane of queues, to the caller's time;
    for the work of starting, to the launch times; for the work of steps, PUTs and GETs, to the remaining wall times
    over `object`; for the work of queues, to those over `queue`. Apply the values to other runs than these.

    Parameters
    ----------
    observed : sequence of (Scenario, Host, RunReport)
        Measured runs of processes on one host, with their scenarios; hosts may differ in ``others``.

    Raises
    ------
    SettingError
        There is no run to fit to.
    """
    if not observed:
        raise SettingError("a host's timing is fitted to runs; give at least one")
    source = f"fitted on {len(observed)} runs of this host, {time.strftime('%Y-%m-%d')}"
    first, host, _ = observed[0]
    before = {name: each.value for name, each in first.timing.values.items()} | dict(host.values)
    found = {name: Sourced(before[name], source) for name in (*_CALLER, *_LANE)}
    queue = [place for place, run in enumerate(observed) if run[0].channel == "queue"]
    others = [place for place, run in enumerate(observed) if run[0].channel != "queue"]
    factors = [
        _Factor(_CALLER, rest_s, others),
        _Factor(_LANE, rest_s, queue),
        _Factor(_STARTING, _launch_s, [*queue, *others]),
        _Factor(_WORKING, _between_s, others or queue),
        _Factor(_QUEUES, _between_s, queue),
    ]
    for _ in range(_PASSES):
        runs = [simulate_one_by_one(*with_fitted(it, on, found)).report() for it, on, _ in observed]
        for factor in factors:
            if factor.runs:
                pairs = [(factor.measure(runs[place]), factor.measure(observed[place][2])) for place in factor.runs]
                factor.adjust(statistics.median(math.log(max(one, 1e-3) / max(other, 1e-3)) for one, other in pairs))
                found |= {name: Sourced(before[name] * math.exp(factor.log), source) for name in factor.names}
    return found


def with_fitted(scenario: Scenario, host: Host, found: Mapping[str, Sourced]) -> tuple[Scenario, Host]:
    """Return a scenario and its host with the fitted values applied."""
    of_host = {name: each.value for name, each in found.items() if name in host.values}
    timing = scenario.timing.with_values("fitted", {name: it for name, it in found.items() if name not in host.values})
    return replace(scenario, timing=timing), host.with_values(**of_host)


@dataclass
class _Factor:
    """A factor on some timing values, fitted so that the median error of the simulated runs is zero.

    The median limits the influence of a run that was disturbed by another program.
    """

    names: Sequence[str]
    measure: Callable[[RunReport], float]
    runs: Sequence[int]
    log: float = 0.0
    _before: tuple[float, float] | None = None

    def adjust(self, off: float) -> None:
        """Update the factor by a secant step, given the error `off` of the last simulation, as a logarithm."""
        slope = _STEEPEST
        if self._before is not None and abs(self.log - self._before[0]) > 1e-3:
            slope = (off - self._before[1]) / (self.log - self._before[0])
        self._before = self.log, off
        change = off / min(max(slope, _FLATTEST), _STEEPEST)
        self.log = min(max(self.log - change, math.log(0.1)), math.log(10.0))


_CALLER = ("client.after_s",)
_LANE = ("lane.s",)
_STARTING = ("cpu.begin_s", "cpu.open_s")
_WORKING = ("cpu.step_s", "cpu.put_s", "cpu.get_s", "server.put_s", "server.get_s")
_QUEUES = (
    *(f"cpu.{name}_s" for name in ("publish", "receive", "message")),
    *(f"server.{name}_s" for name in ("publish", "receive", "message", "look", "hidden")),
)


def _launch_s(run: RunReport) -> float:
    return run.launch_s


def _between_s(run: RunReport) -> float:
    return run.wall_s - run.launch_s - rest_s(run)


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """A measured run: its report, its exchange plan, and its number of micro-batches."""

    report: RunReport
    plan: ExchangePlan
    micro_batches: int


def fit_receive_model(runs: Sequence[ObservedRun]) -> ReceiveModel:
    """Return a receive model fitted to measured runs; parameters that the runs do not determine keep their defaults.

    The numbers of polls and misses are fitted with equal weight for each run. This needs runs over the channel in
    question with different numbers of workers and of micro-batches.

    Raises
    ------
    SettingError
        There is no run with at least two workers that exchange data.
    """
    runs = [run for run in runs if run.plan.workers > 1 and any(run.plan.exchanges)]
    if not runs:
        raise SettingError(
            "the receive model is fitted to runs of at least 2 workers that exchange something; give at least one"
        )
    model = ReceiveModel()
    start_s = sum(run.report.launch_s / (run.plan.workers - 1) for run in runs) / len(runs)
    model = replace(model, start_s=start_s)
    for channel, names, count in (
        ("queue", ("polls", "polls_sources", "messages_a_poll"), _polls),
        ("object", ("misses", "misses_log"), _misses),
    ):
        of_channel = [run for run in runs if run.report.channel == channel]
        if of_channel:
            model = _fitted(model, names, [(run, _arrivals(run.plan)) for run in of_channel], count)
    return model


_Arrivals = list[tuple[int, int]]
"""Number of sources and of edges, for each (layer, rank) that receives frames."""
_Count = Callable[[ReceiveModel, ObservedRun, _Arrivals], tuple[float, float]]
"""Maps a model, a run and its arrivals to a (predicted, measured) count."""


def _arrivals(plan: ExchangePlan) -> _Arrivals:
    sources: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    edges: Counter[tuple[int, int]] = Counter()
    for layer, exchange in enumerate(plan.exchanges):
        for edge in exchange:
            for target in edge.targets:
                sources[layer, target].add(edge.source)
                edges[layer, target] += 1
    return [(len(sources[key]), edges[key]) for key in sources]


def _polls(model: ReceiveModel, run: ObservedRun, arrivals: _Arrivals) -> tuple[float, float]:
    parts = run.micro_batches
    layer_mb = run.report.usage.received_bytes / 1e6 / max(1, len(run.plan.exchanges))
    predicted = sum(model.polls_before(sources, edges * parts, layer_mb) for sources, edges in arrivals)
    return predicted, run.report.usage.requests["sqs.receive"] - run.report.usage.empty_polls


def _misses(model: ReceiveModel, run: ObservedRun, arrivals: _Arrivals) -> tuple[float, float]:
    predicted = sum(model.misses_before(sources) for sources, _ in arrivals)
    # Until the last rank has started, the others wait half of the time on average.
    waited_s = run.report.launch_s * run.plan.workers / 2
    return predicted, max(0.0, run.report.usage.misses - waited_s * model.looks_a_second)


def _fitted(
    model: ReceiveModel, names: Sequence[str], runs: Sequence[tuple[ObservedRun, _Arrivals]], count: _Count
) -> ReceiveModel:
    """Return the model with the attributes `names` fitted to the runs by least squares of relative errors."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - slow to import, and most tests do not need it

    # The defaults count as weak observations (regularisation), so that few runs do not distort the fit.
    default = [getattr(model, name) for name in names]

    def residuals(values: Iterable[float], /) -> list[float]:
        tried = replace(model, **dict(zip(names, map(float, values), strict=True)))
        pairs = [count(tried, run, arrivals) for run, arrivals in runs]
        off = [
            (predicted - counted) / math.sqrt(max(counted, 1.0) * max(predicted, 1.0)) for predicted, counted in pairs
        ]
        return off + [0.1 * (value / before - 1) for value, before in zip(values, default, strict=True)]

    best = least_squares(residuals, default, bounds=(0.01, BATCH_ENTRIES)).x
    return replace(model, **dict(zip(names, map(float, best), strict=True)))
