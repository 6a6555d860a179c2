"""The day study: cost and latency of answering a day's queries, for each alternative."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from fsd_inference.config import Clocks
from fsd_inference.cost.model import Billing
from fsd_inference.cost.prices import PriceTable
from fsd_inference.errors import SettingError
from fsd_inference.forecast.advising import advise
from fsd_inference.forecast.cut import Cut
from fsd_inference.forecast.cutting import cut_network
from fsd_inference.forecast.options import VARIANTS, Advice, Option, Question
from fsd_inference.forecast.planner import KEPT_WARM_S
from fsd_inference.forecast.timing import Timing
from fsd_inference.forecast.workload import Query
from fsd_inference.limits import ACCOUNT_CONCURRENCY, QUEUE_BACKOFF
from fsd_inference.network import Network
from fsd_inference.progress import Progress, Silent, task

PERCENTILES = (50, 95, 99)
_SIZES = 5  # batch sizes that are planned; times and costs of others are interpolated log-log
_PATIENCE_S = Clocks().run_s


@dataclass(frozen=True, slots=True)
class Day:
    """The result of a day's queries for one alternative.

    Attributes
    ----------
    name : str
        Variant for functions; variant and instance type for servers.
    usd : float
        Cost of the day in dollars.
    latency_s : dict of str to float
        Percentiles and maximum of the seconds from a query to its answer: ``p50``, ``p95``, ``p99``, ``max``.
    cold : float or None
        Fraction of the queries with a cold start; None for servers.
    throttled : int or None
        Number of queries that waited for admission because of the account's concurrency limit; None for servers.
    problem : str or None
        Why some queries cannot be answered within the limits; None if all are.
    is_estimated : bool
        Whether the predictions use an estimated exchange.
    """

    name: str
    usd: float
    latency_s: dict[str, float]
    cold: float | None = None
    throttled: int | None = None
    problem: str | None = None
    is_estimated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the day as plain JSON values."""
        return asdict(self)


def study(
    network: Network,
    queries: Sequence[Query],
    question: Question,
    *,
    timing: Timing | None = None,
    prices: PriceTable | None = None,
    x: sparse.csr_array | None = None,
    billing: Billing | None = None,
    cuts: Mapping[int, Cut] | None = None,
    cache: Path | None = None,
    concurrency: int = ACCOUNT_CONCURRENCY,
    progress: Progress | None = None,
) -> tuple[Day, ...]:
    """Predict cost and latency of a day's queries for each alternative.

    On functions, each query uses the option of the variant that `advise` ranks first for its number of samples, and
    reuses warm environments that are idle and were used in the last `KEPT_WARM_S` seconds; others start cold, and their
    init phase is billed. An always-on server answers one query after the other; a job-scoped server is started for each
    query.

    Overlapping queries share the account's concurrency limit. They are admitted in order of arrival: each waits without
    occupying a function until all functions that it needs are free, and its client next asks for admission. A query
    that is not admitted within the run clock is refused.

    Parameters
    ----------
    network : Network
    queries : sequence of Query
        At least one, by ascending time.
    question : Question
        Its limits apply to each query; `samples`, `queries_a_day` and `cold` follow from the queries.
    timing, prices, x, billing, cuts, cache, progress
        As for `advise`.
    concurrency : int
        The account's limit of concurrent function executions, which coordinators count towards.

    Returns
    -------
    tuple of Day
        By ascending cost; alternatives that cannot answer all queries come last.

    Raises
    ------
    SettingError
        `concurrency` is below 1, or the price table lacks a price that is needed.
    """
    if concurrency < 1:
        raise SettingError(f"concurrency must be at least 1 function at once, not {concurrency}")
    progress = progress or Silent()
    if cuts is None:
        largest = replace(question, samples=max(query.samples for query in queries))
        cuts = cut_network(network, largest, x=x, cache=cache, progress=progress)
    sizes = _sizes(query.samples for query in queries)

    def plans(*, are_cold: bool) -> list[Advice]:
        asked = (replace(question, samples=size, queries_a_day=None, cold=are_cold) for size in sizes)
        return [advise(network, one, cuts=cuts, timing=timing, prices=prices, billing=billing) for one in asked]

    with task(progress, "study"):
        cold, warm = plans(are_cold=True), plans(are_cold=False)
    days = []
    for name, picked in _alternatives(cold[-1]).items():
        seldom, often = ([picked(advice.options) for advice in each] for each in (cold, warm))
        if picked(cold[-1].options).is_server:
            day = _server_day(name, queries, sizes, seldom, question.deadline_s)
        else:
            day = _function_day(name, queries, sizes, seldom, often, concurrency, question.deadline_s)
        days.append(day)
    return tuple(sorted(days, key=lambda day: (day.problem is not None, day.usd)))


_Pick = Callable[[Iterable[Option]], Option]


def _alternatives(advice: Advice) -> dict[str, _Pick]:
    """Return, by name, a function that picks each alternative from the options for any batch size."""

    def pick(*kind: object) -> _Pick:
        return lambda options: next(o for o in options if _kind(o) == kind)

    # A cluster has the same servers all day: use the number that is best for the largest query.
    firsts = {(o.variant, o.workers > 1 or o.instance): o for o in reversed(advice.options)}
    ordered = sorted(firsts.values(), key=lambda o: (VARIANTS.index(o.variant), o.instance or ""))
    return {option.name if option.is_server else option.variant: pick(*_kind(option)) for option in ordered}


def _kind(option: Option) -> tuple[object, ...]:
    return (option.variant, option.instance, option.workers) if option.is_server else (option.variant,)


def _sizes(samples: Iterable[int]) -> list[int]:
    found = sorted(set(samples))
    if len(found) <= _SIZES:
        return found
    return sorted({round(size) for size in np.geomspace(found[0], found[-1], _SIZES)})


def _curve(sizes: Sequence[int], values: Sequence[float]) -> Callable[[int], float]:
    x, y = np.log(sizes), np.log(np.maximum(values, 1e-12))
    return lambda samples: float(np.exp(np.interp(np.log(samples), x, y)))


def _function_day(
    name: str,
    queries: Sequence[Query],
    sizes: Sequence[int],
    cold: Sequence[Option],
    warm: Sequence[Option],
    concurrency: int,
    deadline_s: float | None,
) -> Day:
    walls = [_curve(sizes, [option.wall_s for option in options]) for options in (cold, warm)]
    costs = [_curve(sizes, [option.usd or 0.0 for option in options]) for options in (cold, warm)]
    account = _Account(concurrency)
    free: list[float] = []  # for each set of environments, the time at which its last query ended
    latencies, usd, colds, throttled, refused = [], 0.0, 0, 0, 0
    for query in queries:
        option = cold[min(bisect_left(sizes, query.samples), len(sizes) - 1)]
        need = option.replicas * (option.workers + 1)  # workers and a coordinator
        began_s = account.free_from(query.at_s, need)
        waited_s = _asked_for(began_s - query.at_s)
        began_s = query.at_s + waited_s
        throttled += waited_s > 0
        refused += waited_s > _PATIENCE_S
        # The most recently used environments are taken first, so that the others can expire.
        free = [ended for ended in free if began_s - ended <= KEPT_WARM_S]
        ready = max((ended for ended in free if ended <= began_s), default=None)
        is_warm = ready is not None
        if ready is not None:
            free.remove(ready)
        colds += not is_warm
        ended_s = began_s + walls[is_warm](query.samples)
        account.run(need, ended_s)
        latencies.append(ended_s - query.at_s)
        usd += costs[is_warm](query.samples)
        free.append(ended_s)
    problem = _problem(cold) or account.problem or _late(latencies, deadline_s)
    if problem is None and refused:
        problem = f"{refused:,} of {len(queries):,} queries are not admitted within {_PATIENCE_S:g} s"
    is_estimated = any(option.is_estimated for option in cold)
    return Day(name, usd, _percentiles(latencies), colds / len(queries), throttled, problem, is_estimated)


def _asked_for(wait_s: float) -> float:
    """Return the seconds until a waiting client asks for the first time after `wait_s`; 0 if it need not wait."""
    asked_s, pause_s = 0.0, QUEUE_BACKOFF.first_s
    while asked_s < wait_s:
        asked_s += pause_s
        pause_s = QUEUE_BACKOFF.after(pause_s)
    return asked_s


class _Account:
    """The concurrency limit of an AWS account, which serves queries in order of arrival."""

    def __init__(self, concurrency: int) -> None:
        self._concurrency = self._free = concurrency
        self._running: list[tuple[float, int]] = []  # heap of (end time, number of functions)
        self._last_s = 0.0
        self.problem: str | None = None

    def free_from(self, at_s: float, need: int) -> float:
        """Return the time at which `need` functions are free for a query that arrives at `at_s`, after earlier ones."""
        if need > self._concurrency:
            said = f"a query needs {need:,} functions at once, and the account may run {self._concurrency:,}"
            self.problem = self.problem or said
            need = self._concurrency
        at_s = max(at_s, self._last_s)
        while self._running and (self._running[0][0] <= at_s or self._free < need):
            ended_s, count = heappop(self._running)
            at_s = max(at_s, ended_s)
            self._free += count
        self._last_s = at_s
        return at_s

    def run(self, need: int, until_s: float) -> None:
        """Occupy `need` functions until a time."""
        need = min(need, self._concurrency)
        self._free -= need
        heappush(self._running, (until_s, need))


def _server_day(
    name: str, queries: Sequence[Query], sizes: Sequence[int], options: Sequence[Option], deadline_s: float | None
) -> Day:
    takes = _curve(sizes, [option.wall_s for option in options])
    usd = options[-1].usd_a_day
    if usd is None:  # job-scoped: a server is started for each query
        cost = _curve(sizes, [option.usd or 0.0 for option in options])
        usd = sum(cost(query.samples) for query in queries)
        latencies = [takes(query.samples) for query in queries]
    else:
        free, latencies = 0.0, []
        for query in queries:
            free = max(free, query.at_s) + takes(query.samples)
            latencies.append(free - query.at_s)
    return Day(name, usd, _percentiles(latencies), problem=_problem(options) or _late(latencies, deadline_s))


def _problem(options: Sequence[Option]) -> str | None:
    """Return the problem of the largest batch size that has one, ignoring the rate limit, which the study simulates."""
    return next((o.problem for o in reversed(options) if o.problem is not None and o.limit != "rate"), None)


def _late(latencies: Sequence[float], deadline_s: float | None) -> str | None:
    """Return a problem with the number of queries that miss the deadline; None if none does."""
    late = 0 if deadline_s is None else sum(latency > deadline_s for latency in latencies)
    return f"{late:,} of {len(latencies):,} queries after the deadline of {deadline_s:g} s" if late else None


def _percentiles(latencies: Sequence[float]) -> dict[str, float]:
    found = {f"p{p}": float(np.percentile(latencies, p)) for p in PERCENTILES}
    return {**found, "max": max(latencies)}
