"""Values of a host and its emulator, and of the receive model, fitted on measured runs."""

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
_STEEPEST, _FLATTEST = 1.0, 0.25  # by how much of a change of work, in logarithms, a time is taken to change


def fit_host(observed: Sequence[tuple[Scenario, Host, RunReport]]) -> dict[str, Sourced]:
    """Return the values with which simulated runs take as long as the observed ones: of timing, and of the host.

    Factors are sought, in turn: on the caller's work beside its ranks, and on that for a lane of queues; on the work of
    starting, from the launches; on that of steps, PUTs and GETs, from the rest of the wall times over `object`; on that
    of queues, of those over `queue`. Use them for other runs.

    Parameters
    ----------
    observed : sequence of (Scenario, Host, RunReport)
        Runs of processes on one host, and what they are simulated from: hosts may differ in ``others``.

    Raises
    ------
    SettingError
        There is no run to learn from.
    """
    if not observed:
        raise SettingError("a host's timing is fitted on runs; give some")
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
    """Return a scenario and its host with fitted values."""
    of_host = {name: each.value for name, each in found.items() if name in host.values}
    timing = scenario.timing.with_values("fitted", {name: it for name, it in found.items() if name not in host.values})
    return replace(scenario, timing=timing), host.with_values(**of_host)


@dataclass
class _Factor:
    """A factor on some values, with which half of the simulated runs measure more than the observed ones did.

    So a run that another program disturbed counts no more than others.
    """

    names: Sequence[str]
    measure: Callable[[RunReport], float]
    runs: Sequence[int]
    log: float = 0.0
    _before: tuple[float, float] | None = None

    def adjust(self, off: float) -> None:
        """Change it, what was simulated with it being off by so much, in logarithms."""
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
    """A run to learn from: its report, the plan that it followed, and its micro-batches."""

    report: RunReport
    plan: ExchangePlan
    micro_batches: int


def fit_receive_model(runs: Sequence[ObservedRun]) -> ReceiveModel:
    """Return the receive model that the runs show; what they do not show keeps its default.

    Polls and misses are fitted to their counts, each run weighing the same. That takes runs over the channel in
    question, with different numbers of workers, and of micro-batches.

    Raises
    ------
    SettingError
        There is no run of several workers to learn from.
    """
    runs = [run for run in runs if run.plan.workers > 1 and any(run.plan.exchanges)]
    if not runs:
        raise SettingError(
            "the receive model is fitted on runs of at least 2 workers that exchange something; give some"
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
"""Sources and edges of each (layer, rank) that gets frames."""
_Count = Callable[[ReceiveModel, ObservedRun, _Arrivals], tuple[float, float]]
"""From model and a run to (predicted, counted)."""


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
    # Until the last rank has started, the others wait half the time on average.
    waited_s = run.report.launch_s * run.plan.workers / 2
    return predicted, max(0.0, run.report.usage.misses - waited_s * model.looks_a_second)


def _fitted(
    model: ReceiveModel, names: Sequence[str], runs: Sequence[tuple[ObservedRun, _Arrivals]], count: _Count
) -> ReceiveModel:
    """Return the model whose attributes `names` fit the runs best, in relative terms."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes a while to import, and predictions do without

    # The defaults are weak observations too, so that few runs do not lead astray.
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
