"""What timing makes of receiving: how often ranks poll, and how often they look in vain. Fitted on runs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from fsd_inference.errors import SettingError
from fsd_inference.limits import BATCH_ENTRIES
from fsd_inference.partition.plan import ExchangePlan
from fsd_inference.run_report import RunReport


@dataclass(frozen=True, slots=True)
class Habits:
    """What timing makes of receiving.

    The defaults are those of local processes against the emulator: they were fitted on runs of RadiX-Net (1024
    neurons, 24 layers, 400 inputs) and of random networks (256 and 384 neurons) on 2 to 7 workers, with and without
    micro-batches. Latency on AWS is another: fit them on reports of runs there.

    Attributes
    ----------
    polls, polls_sources : float
        A rank that gets frames from s sources before a layer polls polls (1 - exp(-s / polls_sources)) times for them:
        frames that come together are found by one poll.
    polls_a_mb : float
        So many times more for each MB that all ranks exchange before the layer: what takes time to carry comes apart.
        The emulator carries one frame after the other.
    messages_a_poll : float
        The most that a poll finds, on average; 10 is what SQS gives at most. With micro-batches there are more messages
        than the above would find.
    misses, misses_log : float
        Over `object` it looks misses + misses_log ln s times for what is not there yet, micro-batches or not.
    start_s : float
        Seconds from the start of one rank to that of the next: those that are there wait for the last one.
    looks_a_second : float
        How often a rank that waits so looks for objects and for an abort.
    """

    polls: float = 1.45
    polls_sources: float = 0.95
    polls_a_mb: float = 0.2
    messages_a_poll: float = 7.0
    misses: float = 0.6
    misses_log: float = 0.4
    start_s: float = 0.65
    looks_a_second: float = 3.0

    def polls_before(self, sources: int, messages: float, layer_mb: float) -> float:
        """Return how often a rank polls for the messages of a layer, before which all ranks exchange `layer_mb`."""
        together = self.polls * (1 - math.exp(-sources / self.polls_sources))
        expected = min(messages, together + self.polls_a_mb * layer_mb)
        return max(expected, messages / self.messages_a_poll)

    def misses_before(self, sources: int) -> float:
        """Return how often a rank looks in vain for the objects of a layer."""
        return self.misses + self.misses_log * math.log(sources)

    def waiting_s(self, workers: int) -> float:
        """Return the seconds, summed over the ranks, until the last one has started."""
        return self.start_s * workers * (workers - 1) / 2


@dataclass(frozen=True, slots=True)
class HabitRun:
    """A run to learn from: its report, the plan that it followed, and its micro-batches."""

    report: RunReport
    plan: ExchangePlan
    micro_batches: int


def fit_habits(runs: Sequence[HabitRun]) -> Habits:
    """Return the habits that the runs show; what they do not show keeps its default.

    Polls and misses are fitted to their counts, each run weighing the same. That takes runs over the channel in
    question, with different numbers of workers, and of micro-batches.

    Raises
    ------
    SettingError
        There is no run of several workers to learn from.
    """
    runs = [run for run in runs if run.plan.workers > 1 and any(run.plan.exchanges)]
    if not runs:
        raise SettingError("habits are fitted on runs of at least 2 workers that exchange something; give some")
    habits = Habits()
    start_s = sum(run.report.launch_s / (run.plan.workers - 1) for run in runs) / len(runs)
    habits = replace(habits, start_s=start_s)
    for channel, names, count in (
        ("queue", ("polls", "polls_sources", "messages_a_poll"), _polls),
        ("object", ("misses", "misses_log"), _misses),
    ):
        of_channel = [run for run in runs if run.report.channel == channel]
        if of_channel:
            habits = _fitted(habits, names, [(run, _arrivals(run.plan)) for run in of_channel], count)
    return habits


_Arrivals = list[tuple[int, int]]
"""Sources and edges of each (layer, rank) that gets frames."""
_Count = Callable[[Habits, HabitRun, _Arrivals], tuple[float, float]]
"""From habits and a run to (predicted, counted)."""


def _arrivals(plan: ExchangePlan) -> _Arrivals:
    sources: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    edges: Counter[tuple[int, int]] = Counter()
    for layer, exchange in enumerate(plan.exchanges):
        for edge in exchange:
            for target in edge.targets:
                sources[layer, target].add(edge.source)
                edges[layer, target] += 1
    return [(len(sources[key]), edges[key]) for key in sources]


def _polls(habits: Habits, run: HabitRun, arrivals: _Arrivals) -> tuple[float, float]:
    parts = run.micro_batches
    layer_mb = run.report.usage.received_bytes / 1e6 / max(1, len(run.plan.exchanges))
    predicted = sum(habits.polls_before(sources, edges * parts, layer_mb) for sources, edges in arrivals)
    return predicted, run.report.usage.requests["sqs.receive"] - run.report.usage.empty_polls


def _misses(habits: Habits, run: HabitRun, arrivals: _Arrivals) -> tuple[float, float]:
    predicted = sum(habits.misses_before(sources) for sources, _ in arrivals)
    # Until the last rank has started, the others wait half the time on average.
    waited_s = run.report.launch_s * run.plan.workers / 2
    return predicted, max(0.0, run.report.usage.misses - waited_s * habits.looks_a_second)


def _fitted(habits: Habits, names: Sequence[str], runs: Sequence[tuple[HabitRun, _Arrivals]], count: _Count) -> Habits:
    """Return the habits whose attributes `names` fit the runs best, in relative terms."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes a while to import, and predictions do without

    # The defaults are weak observations too, so that few runs do not lead astray.
    default = [getattr(habits, name) for name in names]

    def residuals(values: Iterable[float], /) -> list[float]:
        tried = replace(habits, **dict(zip(names, map(float, values), strict=True)))
        pairs = [count(tried, run, arrivals) for run, arrivals in runs]
        off = [
            (predicted - counted) / math.sqrt(max(counted, 1.0) * max(predicted, 1.0)) for predicted, counted in pairs
        ]
        return off + [0.1 * (value / before - 1) for value, before in zip(values, default, strict=True)]

    best = least_squares(residuals, default, bounds=(0.01, BATCH_ENTRIES)).x
    return replace(habits, **dict(zip(names, map(float, best), strict=True)))
